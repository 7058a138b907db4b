//! Requests to the kernel over netlink sock_diag.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED,
    TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT,
    TCP_TIME_WAIT,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::tcp_info::TcpInfo;
use super::{TcpAccount, TcpState, TcpTimer};

/// The kernel fills at most 32 KiB per datagram of a dump.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// `INET_DIAG_NOCOOKIE`: the addresses alone name the socket.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

pub(super) fn tcp_account(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<TcpAccount>> {
    let family = match (local, peer) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => AF_INET,
        (SocketAddr::V6(_), SocketAddr::V6(_)) => AF_INET6,
        _ => return Ok(None),
    };
    let socket_id = SocketId {
        source_port: local.port(),
        destination_port: peer.port(),
        source_address: local.ip(),
        destination_address: peer.ip(),
        interface_id: scope(local).max(scope(peer)),
        cookie: ANY_COOKIE,
    };
    let mut found = None;
    let asked = ask(family, StateFlags::all(), socket_id, 0, |account| {
        found = Some(account);
    });
    match asked {
        // If there is no such connection, the kernel answers with the listener, if any.
        Ok(()) => Ok(found.filter(|account| account.state != TcpState::Listen)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The sockets that listen.
pub(super) fn tcp_listeners() -> io::Result<Vec<TcpAccount>> {
    all(&StateFlags::LISTEN)
}

pub(super) fn tcp_accounts() -> io::Result<Vec<TcpAccount>> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::CLOSE_WAIT
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSING
        | StateFlags::LAST_ACK
        | StateFlags::SYN_SENT;
    all(&states)
}

/// All sockets in these states.
fn all(states: &StateFlags) -> io::Result<Vec<TcpAccount>> {
    let mut accounts = Vec::new();
    for (family, any) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let asked = ask(family, states.clone(), any, NLM_F_DUMP, |account| {
            accounts.push(account);
        });
        match asked {
            // A kernel without IPv6 has no handler for it.
            Err(error) if family == AF_INET6 && error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(accounts)
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    }
}

/// Sends one request and passes each account of the answer to `each`.
fn ask(
    family: u8,
    states: StateFlags,
    socket_id: SocketId,
    flags: u16,
    mut each: impl FnMut(TcpAccount),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    socket.send(&question(family, states, socket_id, flags), 0)?;

    let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
    loop {
        buffer.clear();
        if socket.recv(&mut buffer, 0)? == 0 {
            return Err(malformed("an empty datagram"));
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(malformed)?;
            let padded = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(padded..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    each(account(&response));
                    if flags & NLM_F_DUMP == 0 {
                        return Ok(());
                    }
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Overrun(_) => return Err(malformed("an overrun")),
                _ => {}
            }
        }
    }
}

fn question(family: u8, states: StateFlags, socket_id: SocketId, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO | ExtensionFlags::SKMEMINFO,
        states,
        socket_id,
    };
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(SockDiagMessage::InetRequest(request)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn malformed(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the kernel's answer over netlink sock_diag could not be read: {what}"),
    )
}

fn account(response: &InetResponse) -> TcpAccount {
    let header = &response.header;
    let mut info = TcpInfo(&[]);
    let (mut receive_buffer, mut send_buffer) = (0, 0);
    for nla in &response.nlas {
        match nla {
            Nla::TcpInfo(bytes) => info = TcpInfo(bytes),
            Nla::MemInfo(memory) => {
                receive_buffer = memory.receive_queue_max;
                send_buffer = memory.send_queue_max;
            }
            _ => {}
        }
    }
    let id = &header.socket_id;
    TcpAccount {
        cookie: u64::from_ne_bytes(id.cookie),
        local: address(id.source_address, id.source_port),
        peer: address(id.destination_address, id.destination_port),
        inode: header.inode,
        uid: header.uid,
        state: state(header.state),
        timer: timer(header.timer.as_ref()),
        retransmits: info.retransmits(),
        probes: info.probes(),
        backoff: info.backoff(),
        receive_queue: header.recv_queue,
        send_queue: header.send_queue,
        not_sent: info.not_sent(),
        unacked: info.unacked(),
        lost: info.lost(),
        congestion_window: info.congestion_window(),
        receive_buffer,
        send_buffer,
        peer_window: info.peer_window(),
        own_window: info.own_window(),
        rto: info.rto(),
        rtt: info.rtt(),
        mss: info.mss(),
        last_data_sent: info.last_data_sent(),
        last_data_received: info.last_data_received(),
        last_ack_received: info.last_ack_received(),
        busy: info.busy(),
        limited_by_peer_window: info.limited_by_peer_window(),
        limited_by_send_buffer: info.limited_by_send_buffer(),
        bytes_sent: info.bytes_sent(),
        bytes_acked: info.bytes_acked(),
        bytes_received: info.bytes_received(),
        bytes_retransmitted: info.bytes_retransmitted(),
        total_retransmits: info.total_retransmits(),
    }
}

/// Shows IPv4-mapped addresses of a dual-stack socket as IPv4 addresses.
fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

fn state(state: u8) -> TcpState {
    match state {
        TCP_ESTABLISHED => TcpState::Established,
        TCP_SYN_SENT => TcpState::SynSent,
        TCP_SYN_RECV => TcpState::SynReceived,
        TCP_FIN_WAIT1 => TcpState::FinWait1,
        TCP_FIN_WAIT2 => TcpState::FinWait2,
        TCP_TIME_WAIT => TcpState::TimeWait,
        TCP_CLOSE => TcpState::Closed,
        TCP_CLOSE_WAIT => TcpState::CloseWait,
        TCP_LAST_ACK => TcpState::LastAck,
        TCP_LISTEN => TcpState::Listen,
        TCP_CLOSING => TcpState::Closing,
        other => TcpState::Unknown(other),
    }
}

fn timer(timer: Option<&Timer>) -> TcpTimer {
    match timer {
        None => TcpTimer::Off,
        Some(Timer::Retransmit(expires, _)) => TcpTimer::Retransmit { expires: *expires },
        Some(Timer::KeepAlive(expires)) => TcpTimer::KeepAlive { expires: *expires },
        Some(Timer::TimeWait) => TcpTimer::TimeWait,
        Some(Timer::Probe(expires)) => TcpTimer::Persist { expires: *expires },
    }
}
