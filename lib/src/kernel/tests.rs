use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

fn pair(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).expect("loopback can be listened on");
    let near = TcpStream::connect(listener.local_addr().unwrap()).expect("connects");
    let (far, _) = listener.accept().expect("accepts");
    (near, far)
}

fn account_of(socket: &TcpStream) -> TcpAccount {
    tcp_account(socket.local_addr().unwrap(), socket.peer_addr().unwrap())
        .expect("the kernel answers")
        .expect("the socket exists")
}

#[test]
fn the_account_of_one_socket_counts_its_bytes() {
    let (mut near, mut far) = pair("127.0.0.1:0");
    near.write_all(&[7; 5000]).unwrap();
    let mut start = [0; 1000];
    far.read_exact(&mut start).unwrap();

    let account = account_of(&far);
    assert_eq!(account.state, TcpState::Established);
    assert_eq!(account.local, far.local_addr().unwrap());
    assert_eq!(account.peer, near.local_addr().unwrap());
    assert_eq!(account.bytes_received, 5000);
    assert_eq!(account.receive_queue, 4000);
    assert_ne!(account.inode, 0);
    assert_eq!(account_of(&near).bytes_sent, 5000);
    assert_eq!(account_of(&near).peer_is_dead_since(), None);
}

#[test]
fn a_socket_of_both_families_is_found_by_its_mapped_address() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        println!("skipped: no IPv6 on this machine");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let near = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (far, _) = listener.accept().unwrap();
    assert_eq!(account_of(&far).peer, near.local_addr().unwrap());
}

#[test]
fn no_socket_is_no_account() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    assert_eq!(
        tcp_account(local, "127.0.0.1:1".parse().unwrap()).unwrap(),
        None
    );
}

#[test]
fn the_dump_holds_both_ends_of_a_connection_and_no_listener() {
    let (near, far) = pair("127.0.0.1:0");
    let accounts = tcp_accounts().unwrap();
    for socket in [&near, &far] {
        let (local, peer) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        let found = accounts
            .iter()
            .filter(|a| a.local == local && a.peer == peer)
            .count();
        assert_eq!(found, 1);
    }
    assert!(
        accounts
            .iter()
            .all(|account| account.state != TcpState::Listen)
    );
}

/// TCP_USER_TIMEOUT would treat this peer as dead.
#[test]
fn a_live_peer_that_does_not_read_is_never_dead() {
    let (mut near, _far) = pair("127.0.0.1:0");
    near.set_nonblocking(true).unwrap();
    while near.write(&[0; 65_536]).is_ok() {}
    // The persist timer has doubled three times. The kernel answers each probe.
    let began = std::time::Instant::now();
    loop {
        let account = account_of(&near);
        assert_eq!(account.peer_is_dead_since(), None, "{account:?}");
        if matches!(account.timer, TcpTimer::Persist { .. }) && account.backoff >= 3 {
            assert!(account.send_queue > 0);
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{account:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_structure_of_another_kernel_s_length_is_read_as_far_as_it_goes() {
    use super::tcp_info::TcpInfo;
    let mut bytes = vec![0; 400];
    bytes[228..232].copy_from_slice(&7_u32.to_ne_bytes());
    bytes[144..148].copy_from_slice(&9_u32.to_ne_bytes());
    let longer = TcpInfo(&bytes);
    assert_eq!((longer.peer_window(), longer.not_sent()), (Some(7), 9));
    // Linux 4.9 does not report the peer's window. Half a field counts as none.
    for length in [0, 1, 147, 148, 192, 231] {
        let shorter = TcpInfo(&bytes[..length]);
        assert_eq!(shorter.peer_window(), None);
        assert_eq!(shorter.not_sent(), if length >= 148 { 9 } else { 0 });
        assert_eq!(shorter.busy(), Duration::ZERO);
    }
}
