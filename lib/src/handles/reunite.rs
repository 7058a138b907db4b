//! The two halves of a connection, joined again.

use std::{error::Error, fmt, sync::Arc};

use super::{Connection, Receiver, Sender};

/// [`Receiver::reunite`] got halves of two different connections. It gives both back.
pub struct ReuniteError(Box<(Sender, Receiver)>);

impl ReuniteError {
    /// The halves that were given, in the order of [`Connection::split`].
    pub fn into_halves(self) -> (Sender, Receiver) {
        *self.0
    }
}

impl fmt::Debug for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReuniteError").finish_non_exhaustive()
    }
}

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the halves belong to different connections: join each with a half of its own \
             connection",
        )
    }
}

impl Error for ReuniteError {}

impl Receiver {
    /// Joins the halves that [`Connection::split`] made.
    ///
    /// Any clone of the connection's [`Sender`] will do. The other clones stay valid: they go on
    /// sending into the same connection, and keep it open as before. What was received, acknowledged
    /// or queued is not touched.
    ///
    /// # Errors
    /// The halves belong to different connections. [`ReuniteError::into_halves`] gives both back.
    ///
    /// ```no_run
    /// # async fn example(connection: unstall::Connection) -> Result<(), unstall::ReuniteError> {
    /// let (sender, receiver) = connection.split();
    /// let other = sender.clone();
    /// let connection = receiver.reunite(sender)?;
    /// assert_eq!(connection.peer_addr(), other.peer_addr());
    /// # Ok(())
    /// # }
    /// ```
    pub fn reunite(self, sender: Sender) -> Result<Connection, ReuniteError> {
        match Arc::ptr_eq(&self.shared, &sender.shared) {
            true => Ok(Connection {
                sender,
                receiver: self,
            }),
            false => Err(ReuniteError(Box::new((sender, self)))),
        }
    }
}
