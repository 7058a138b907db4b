//! The contestants: one file for each kind.

mod axum;
mod compressed;
pub(crate) mod ezsockets;
mod fastwebsockets;
mod framed;
mod natural;
mod packed;
pub(crate) mod python;
mod raw;
mod sockudo;
mod tokio_websockets;
mod tungstenite;
pub(crate) mod unstall;
mod yawc;

use std::collections::BTreeSet;

use crate::{
    Result,
    engine::{Batching, Engine},
    tls::Secure,
};
use natural::Natural;

/// The contestant to which all others are compared.
pub(crate) const REFERENCE: &str = tungstenite::Batched::NAME;

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) how: &'static str,
    pub(crate) batching: Batching,
    pub(crate) cannot: fn(&str) -> Option<&'static str>,
}

/// A visitor of an engine whose name is known only at run time.
#[allow(async_fn_in_trait)]
pub(crate) trait Visit {
    type Done;
    async fn visit<E: Engine>(self) -> Result<Self::Done>;
}

macro_rules! contestants {
    ($all:ident, $with:ident $(, and $foreign:path)?: $($engine:ty,)*) => {
        pub(crate) const $all: &[Contestant] = &[$(Contestant {
            name: <$engine>::NAME,
            how: <$engine>::HOW,
            batching: <$engine>::BATCHING,
            cannot: <$engine>::cannot,
        },)* $($foreign)?];

        /// Lets the engine called `name` be visited.
        pub(crate) async fn $with<V: Visit>(name: &str, visit: V) -> Result<V::Done> {
            $(if name == <$engine>::NAME {
                return visit.visit::<$engine>().await;
            })*
            Err(format!("no contestant is called {name}").into())
        }
    };
}

contestants![ALL, with:
    tungstenite::Naive,
    tungstenite::Each64,
    tungstenite::Batched,
    fastwebsockets::FastWebSockets,
    tokio_websockets::TokioWebSockets,
    yawc::Yawc,
    sockudo::Sockudo,
    ezsockets::EzSockets,
    raw::Raw,
    packed::Packed,
    unstall::Plain,
    unstall::Session,
    unstall::Batch,
];

// Each is used as its own documentation's users write it.
contestants![NATURAL, with_natural:
    tungstenite::Naive,
    tungstenite::Each64,
    axum::Axum,
    Natural<fastwebsockets::FastWebSockets>,
    Natural<sockudo::Sockudo>,
    Natural<ezsockets::EzSockets>,
    Natural<unstall::Plain>,
    Natural<unstall::Session>,
];

// With permessage-deflate.
contestants![COMPRESSED, with_compressed, and python::WEBSOCKETS:
    compressed::Yawc,
    compressed::Sockudo,
    compressed::Plain,
    compressed::Session,
];

pub(crate) use compressed::tick;

/// The reference among the natural ones.
pub(crate) const NATURAL_REFERENCE: &str = tungstenite::Each64::NAME;

/// Those that take part where all would take too long: tokio-tungstenite, unstall, and the limit.
pub(crate) const FEW: [&str; 4] = [
    tungstenite::Batched::NAME,
    raw::Raw::NAME,
    unstall::Plain::NAME,
    unstall::Session::NAME,
];

/// Visits the engine called `name` over TLS, if it can do that.
pub(crate) async fn with_tls<V: Visit>(name: &str, visit: V) -> Result<V::Done> {
    match name {
        tungstenite::Batched::NAME => visit.visit::<Secure<tungstenite::Batched>>().await,
        raw::Raw::NAME => visit.visit::<Secure<raw::Raw>>().await,
        unstall::Plain::NAME => visit.visit::<Secure<unstall::Plain>>().await,
        unstall::Session::NAME => visit.visit::<Secure<unstall::Session>>().await,
        _ => Err(format!("no contestant is called {name} and speaks TLS").into()),
    }
}

/// Of all that take part anywhere.
pub(crate) fn names() -> BTreeSet<&'static str> {
    let all = ALL.iter().chain(NATURAL).chain(COMPRESSED);
    all.map(|contestant| contestant.name).collect()
}
