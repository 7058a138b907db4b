//! The tokens of a client. They are secrets, so nothing here prints one.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;
use unstall::BoxError;
use unstall_proto::topics::AccessToken;

use crate::defaults::TOKEN_TIMEOUT;

/// Gives the token for each connection.
pub(crate) type TokenFn =
    Arc<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;

/// Where the tokens of a client come from.
pub(crate) enum Tokens {
    None,
    Fixed(Arc<str>),
    /// Each connection has a token of its own.
    Renewed(TokenFn),
}

impl Tokens {
    /// Whether each connection has a token of its own.
    pub(crate) fn are_renewed(&self) -> bool {
        matches!(self, Tokens::Renewed(_))
    }

    /// The token for the next connection, or why there is none. The application's function may
    /// panic, or never come back.
    pub(crate) async fn next(&self) -> Result<AccessToken, Arc<str>> {
        let text = match self {
            Tokens::None => return Ok(AccessToken::NONE),
            Tokens::Fixed(token) => token.to_string(),
            Tokens::Renewed(token) => {
                let asking = AssertUnwindSafe(async { token().await }).catch_unwind();
                match timeout(TOKEN_TIMEOUT, asking).await {
                    Ok(Ok(given)) => given.map_err(|error| Arc::from(error.to_string()))?,
                    Ok(Err(_)) => return Err("its function panicked".into()),
                    Err(_) => return Err("its function took too long".into()),
                }
            }
        };
        AccessToken::new(&text).map_err(|error| error.to_string().into())
    }
}
