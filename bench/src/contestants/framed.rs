//! Engines that are a `Stream` and a `Sink` of messages.

use std::marker::PhantomData;

use bytes::Bytes;
use futures_util::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};

use crate::{
    Failure, Result,
    engine::{Link, Rx, Tx, ended},
};

/// A message type of an engine.
pub(crate) trait Frame: Send + 'static {
    fn binary(payload: &Bytes) -> Self;
    /// The payload, if this is a binary message.
    fn payload(&self) -> Option<&[u8]>;
}

/// `S` carries `F`s: a whole connection or half of one.
pub(crate) struct Framed<S, F>(S, PhantomData<F>);

impl<S, F> Framed<S, F> {
    pub(crate) fn new(stream: S) -> Framed<S, F> {
        Framed(stream, PhantomData)
    }
}

impl<S, F> Tx for Framed<S, F>
where
    S: Sink<F> + Unpin + Send + 'static,
    S::Error: Into<Failure> + Send,
    F: Frame,
{
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        self.0.feed(F::binary(payload)).await.map_err(Into::into)
    }

    async fn flush(&mut self) -> Result<()> {
        self.0.flush().await.map_err(Into::into)
    }
}

impl<S, F, E> Rx for Framed<S, F>
where
    S: Stream<Item = Result<F, E>> + Unpin + Send + 'static,
    E: Into<Failure> + Send,
    F: Frame,
{
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        loop {
            let frame = self.0.next().await.ok_or_else(ended)?.map_err(Into::into)?;
            if let Some(payload) = frame.payload() {
                take(payload);
                return Ok(());
            }
        }
    }
}

impl<S, F, E> Link for Framed<S, F>
where
    S: Stream<Item = Result<F, E>> + Sink<F, Error = E> + Unpin + Send + 'static,
    E: Into<Failure> + Send,
    F: Frame,
{
    type Tx = Framed<SplitSink<S, F>, F>;
    type Rx = Framed<SplitStream<S>, F>;

    fn split(self) -> (Self::Tx, Self::Rx) {
        let (sink, stream) = self.0.split();
        (Framed::new(sink), Framed::new(stream))
    }
}
