//! The contestants, one file each kind.

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
};

/// The contestant to which all others are compared.
pub(crate) const REFERENCE: &str = tungstenite::Batched::NAME;

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) how: &'static str,
    pub(crate) batching: Batching,
    pub(crate) cannot: fn(&str) -> Option<&'static str>,
}

/// Something to be done with an engine that is known by name only at run time.
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

        /// Lets the engine called `name` be visited.
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

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|contestant| contestant.name)
}

/// # Panics
/// If there is none: names come from [`ALL`].
pub(crate) fn named(name: &str) -> &'static Contestant {
    let mut all = ALL.iter();
    all.find(|contestant| contestant.name == name)
        .expect("a contestant's name")
}
