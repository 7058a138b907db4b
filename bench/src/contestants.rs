//! The contestants: one file for each kind.

mod ezsockets;
mod fastwebsockets;
mod framed;
mod packed;
mod raw;
mod sockudo;
mod tokio_websockets;
mod tungstenite;
mod unstall;
mod yawc;

use crate::{
    Result,
    engine::{Batching, Engine},
    tls::Secure,
};

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
    ($($engine:ty,)*) => {
        pub(crate) const ALL: &[Contestant] = &[$(Contestant {
            name: <$engine>::NAME,
            how: <$engine>::HOW,
            batching: <$engine>::BATCHING,
            cannot: <$engine>::cannot,
        }),*];

        /// Visits the engine called `name`.
        pub(crate) async fn with<V: Visit>(name: &str, visit: V) -> Result<V::Done> {
            $(if name == <$engine>::NAME {
                return visit.visit::<$engine>().await;
            })*
            Err(format!("no contestant is called {name}").into())
        }
    };
}

contestants![
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

/// The contestants of workloads in which all would take too long: tokio-tungstenite, unstall, and raw TCP.
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

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|contestant| contestant.name)
}

/// # Panics
/// There is no such engine. Names come from [`ALL`].
pub(crate) fn named(name: &str) -> &'static Contestant {
    let mut all = ALL.iter();
    all.find(|contestant| contestant.name == name)
        .expect("a contestant's name")
}
