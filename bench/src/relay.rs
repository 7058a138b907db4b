//! A relay between client and server, in the client's process. It cuts their connection.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, spawn_local},
};

use crate::{Result, tcp};

pub(crate) struct Relay {
    address: SocketAddr,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    connections: RefCell<Vec<AbortHandle>>,
    /// Connections are accepted and left without an answer.
    held: Cell<bool>,
    opened: Notify,
}

impl Relay {
    pub(crate) fn to(server: SocketAddr) -> Result<Relay> {
        let listener = tcp::listen()?;
        let address = listener.local_addr()?;
        let state = Rc::new(State::default());
        spawn_local(serve(listener, server, state.clone()));
        Ok(Relay { address, state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection through the relay.
    pub(crate) fn cut(&self) {
        for connection in self.state.connections.take() {
            connection.abort();
        }
    }

    /// Lets no new connection pass until [`open`](Self::open).
    pub(crate) fn hold(&self) {
        self.state.held.set(true);
    }

    pub(crate) fn open(&self) {
        self.state.held.set(false);
        self.state.opened.notify_waiters();
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, state: Rc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let task = spawn_local(pass(client, server, state.clone()));
        state.connections.borrow_mut().push(task.abort_handle());
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, state: Rc<State>) -> Result<()> {
    while state.held.get() {
        state.opened.notified().await;
    }
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
