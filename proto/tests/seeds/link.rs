//! Connections that delay packets, fill up, break, and whose ends notice it late.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use unstall_proto::{Generation, Time};

use crate::random::Random;

/// One direction of a connection.
#[derive(Default)]
pub struct Pipe {
    packets: VecDeque<(Time, Bytes)>,
    /// When the last packet put in arrives: packets do not overtake each other.
    last: Time,
    /// When the receiving side sees that the sending one has closed.
    pub eof: Option<Time>,
    /// What went into the broken pipe and fills the sender's socket.
    swallowed: usize,
}

impl Pipe {
    fn load(&self) -> usize {
        self.packets.len() + self.swallowed
    }

    /// The next packet that has arrived by `now`.
    pub fn arrived(&mut self, now: Time) -> Option<Bytes> {
        match self.packets.front() {
            Some((at, _)) if *at <= now => self.packets.pop_front().map(|(_, packet)| packet),
            _ => None,
        }
    }

    /// When something happens here next.
    pub fn next(&self) -> Option<Time> {
        self.packets.front().map(|(at, _)| *at).or(self.eof)
    }

    /// Whether the other side's closing is to be seen now: after all packets.
    pub fn closed(&self, now: Time) -> bool {
        self.packets.is_empty() && self.eof.is_some_and(|at| at <= now)
    }

    /// The receiver reads no more.
    pub fn discard(&mut self) {
        self.packets.clear();
        self.eof = None;
    }
}

/// A connection of a client to a server.
pub struct Wire {
    /// The client's number for it.
    pub client: Generation,
    /// Which of the server's sessions it carries, once HELLO was granted.
    pub server: Option<(usize, Generation)>,
    pub client_open: bool,
    pub server_open: bool,
    pub to_server: Pipe,
    pub to_client: Pipe,
    /// Nothing gets through any more.
    pub cut: bool,
    /// A packet went missing in the middle: the connection is no longer to be trusted.
    pub lost: bool,
    /// How many packets it carries before it breaks.
    pub fuse: Option<u64>,
    pub client_notices: Option<Time>,
    pub server_notices: Option<Time>,
    delay: Duration,
    jitter: u64,
    socket: usize,
}

impl Wire {
    pub fn new(client: Generation, delay: Duration, socket: usize, random: &mut Random) -> Wire {
        let most = delay.as_micros() as u64;
        Wire {
            client,
            server: None,
            client_open: true,
            server_open: true,
            to_server: Pipe::default(),
            to_client: Pipe::default(),
            cut: false,
            lost: false,
            fuse: None,
            client_notices: None,
            server_notices: None,
            delay: Duration::from_micros(random.below(most)),
            jitter: 1 + random.below(most / 4 + 1),
            socket,
        }
    }

    /// Whether `from_client` (or the server) can put another packet in.
    pub fn has_room(&self, from_client: bool) -> bool {
        let (pipe, open) = match from_client {
            true => (&self.to_server, self.client_open),
            false => (&self.to_client, self.server_open),
        };
        open && pipe.load() < self.socket
    }

    /// One packet more is on its way. It may be the last one: then the wire breaks with it.
    pub fn put(&mut self, from_client: bool, now: Time, packet: Bytes, random: &mut Random) {
        let delay = self.delay + Duration::from_micros(random.below(self.jitter));
        let pipe = match from_client {
            true => &mut self.to_server,
            false => &mut self.to_client,
        };
        if self.cut {
            pipe.swallowed += 1;
            return;
        }
        pipe.last = now.after(delay).max(pipe.last);
        pipe.packets.push_back((pipe.last, packet));
        if let Some(left) = &mut self.fuse {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.break_down(now, random);
            }
        }
    }

    /// The wire breaks: of what is on its way, a beginning gets through each way; the packet that
    /// was cut in the middle is lost whole. Each side notices at once, soon, or late.
    pub fn break_down(&mut self, now: Time, random: &mut Random) {
        if self.cut {
            return;
        }
        self.cut = true;
        self.fuse = None;
        for pipe in [&mut self.to_server, &mut self.to_client] {
            let through = random.below(pipe.packets.len() as u64 + 1) as usize;
            pipe.swallowed = pipe.packets.len() - through;
            pipe.packets.truncate(through);
            pipe.eof = None;
        }
        let mut notice = || {
            let micros = match random.below(3) {
                0 => 0,
                1 => random.below(50_000),
                _ => random.below(3_000_000),
            };
            Some(now.after(Duration::from_micros(micros)))
        };
        self.client_notices = notice();
        self.server_notices = notice();
    }

    /// One end closes: the other sees it after what is on its way.
    pub fn close(&mut self, client: bool, now: Time) {
        let delay = self.delay;
        let (open, incoming, outgoing) = match client {
            true => (
                &mut self.client_open,
                &mut self.to_client,
                &mut self.to_server,
            ),
            false => (
                &mut self.server_open,
                &mut self.to_server,
                &mut self.to_client,
            ),
        };
        if !*open {
            return;
        }
        *open = false;
        incoming.discard();
        if !self.cut {
            outgoing.eof = Some(now.after(delay).max(outgoing.last));
        }
    }

    pub fn is_gone(&self) -> bool {
        !self.client_open && !self.server_open
    }
}
