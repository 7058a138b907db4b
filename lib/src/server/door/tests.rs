use std::task::{Context, Waker};

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The length of the line.
const LINE: usize = 100;

/// A door, and clients of any address that arrive at it.
struct World {
    door: Arc<Door>,
    listener: TcpListener,
    start: Instant,
    slots: Vec<Slot>,
}

impl World {
    async fn new(all: usize, per_address: usize) -> World {
        World {
            door: Door::new(Limit::new(all, Some(per_address), None), LINE),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            start: Instant::now(),
            slots: Vec::new(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        later(self.start, Duration::from_millis(millis))
    }

    /// A client arrives whose address ends in this byte. Its end of the connection is reset.
    async fn arrives(&self, ip: u8, millis: u64) -> Option<Arrival> {
        let connect = TcpStream::connect(self.listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connect, self.listener.accept());
        client.unwrap().set_zero_linger().unwrap();
        self.door.arrived(Arrival {
            stream: Transport::of(accepted.unwrap().0),
            peer: PeerAddr::direct(SocketAddr::from(([10, 0, 0, ip], 1))),
            since: self.at(millis),
        })
    }

    /// Begins all handshakes that may; returns the last bytes of their addresses.
    fn begin(&mut self, millis: u64) -> Vec<u8> {
        let mut begun = Vec::new();
        while let Some((arrival, slot)) = self.door.next(self.at(millis)) {
            begun.push(ip(&arrival));
            self.slots.push(slot);
        }
        begun
    }
}

fn ip(arrival: &Arrival) -> u8 {
    match arrival.network() {
        Network::V4(ip) => ip.octets()[3],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_take_turns_and_none_gets_more_than_its_share() {
    let mut world = World::new(4, 2).await;
    for client in [1, 1, 1, 1, 2, 3] {
        world.arrives(client, 0).await;
    }
    assert_eq!(world.begin(0), [1, 2, 3, 1]);
    assert_eq!((world.door.handshaking(), world.door.waiting()), (4, 2));
    // One of address 2 ends: another address may begin, address 1 may not.
    world.slots.remove(1);
    assert!(world.begin(0).is_empty());
    world.arrives(3, 0).await;
    assert_eq!(world.begin(0), [3]);
    world.slots.remove(0);
    assert_eq!(world.begin(0), [1]);
}

#[tokio::test]
async fn a_stalled_handshake_goes_after_a_second_and_of_the_address_that_has_most() {
    let mut world = World::new(4, 3).await;
    for client in [2, 1, 1, 1] {
        world.arrives(client, 0).await;
    }
    assert_eq!(world.begin(0).len(), 4);
    world.arrives(3, 10).await;
    assert!(world.begin(999).is_empty());
    assert_eq!(world.door.evicted(), 0);
    assert_eq!(world.begin(1000), [3]);
    assert_eq!(world.door.evicted(), 1);
    let state = world.door.state.lock().unwrap();
    let count = |ip: u8| state.crowd.members(&Network::V4([10, 0, 0, ip].into()));
    assert_eq!((count(1), count(2), count(3)), (2, 1, 1));
}

#[tokio::test]
async fn a_newcomer_of_the_address_that_has_most_takes_its_own_place() {
    let mut world = World::new(4, 4).await;
    for client in [1, 1, 2, 2] {
        world.arrives(client, 0).await;
    }
    world.begin(0);
    // Both have the same number, so the other one loses nothing.
    world.arrives(2, 0).await;
    assert_eq!(world.begin(1000), [2]);
    let state = world.door.state.lock().unwrap();
    assert_eq!(state.crowd.members(&Network::V4([10, 0, 0, 1].into())), 2);
}

#[tokio::test]
async fn who_waits_in_vain_for_a_second_is_turned_away_and_nobody_while_places_come_free() {
    let mut world = World::new(1, 1).await;
    world.arrives(1, 0).await;
    world.begin(0);
    // It waits for the server, so it is not closed.
    world.slots[0].waits_for_client(false);
    world.arrives(2, 100).await;
    world.arrives(2, 200).await;
    let longest = Duration::from_secs(10);
    assert!(world.door.overdue(world.at(1099), longest).is_empty());
    assert!(world.begin(1100).is_empty());
    let overdue = world.door.overdue(world.at(1100), longest);
    assert_eq!(overdue.len(), 1);
    world.slots.clear();
    assert_eq!(world.begin(1150), [2], "the second was in time");
    world.slots[0].waits_for_client(false);
    world.arrives(3, 0).await;
    assert!(
        world.door.overdue(world.at(2000), longest).is_empty(),
        "one began at 1150"
    );
    assert_eq!(world.door.overdue(world.at(2150), longest).len(), 1);
}

#[tokio::test]
async fn nobody_waits_longer_than_a_handshake_may_take() {
    let mut world = World::new(1, 1).await;
    for _ in 0..100 {
        world.arrives(1, 0).await;
    }
    let longest = Duration::from_secs(3);
    let mut begun = 0;
    for second in 0..4 {
        world.slots.clear();
        begun += world.begin(second * 900).len();
        let overdue = world.door.overdue(world.at(second * 900), longest);
        assert_eq!(overdue.len(), 0, "after {second}");
    }
    assert_eq!(
        world.door.overdue(world.at(3000), longest).len(),
        100 - begun
    );
}

#[tokio::test]
async fn a_full_line_turns_the_last_of_the_longest_queue_away() {
    let world = World::new(1, 1).await;
    for _ in 0..LINE - 1 {
        assert!(world.arrives(1, 0).await.is_none());
    }
    assert!(world.arrives(2, 0).await.is_none());
    assert_eq!(ip(&world.arrives(1, 0).await.unwrap()), 1, "it is full");
    assert_eq!(
        ip(&world.arrives(3, 0).await.unwrap()),
        1,
        "and the few may still come"
    );
    assert_eq!(world.door.waiting(), LINE);
}

#[tokio::test]
async fn without_descriptors_a_silent_handshake_goes_and_else_one_who_waits() {
    let mut world = World::new(2, 2).await;
    for client in [1, 1, 1, 1, 2] {
        world.arrives(client, 0).await;
    }
    world.begin(0);
    assert_eq!(world.door.relieve(world.at(10)).as_ref().map(ip), Some(1));
    assert!(world.door.relieve(world.at(1000)).is_none());
    assert_eq!((world.door.evicted(), world.door.waiting()), (1, 2));
}

#[tokio::test]
async fn a_handshake_that_turns_out_to_be_another_addresss_counts_there() {
    let mut world = World::new(4, 2).await;
    for client in [1, 1, 1] {
        world.arrives(client, 0).await;
    }
    assert_eq!(world.begin(0), [1, 1]);
    let client = Network::V4([192, 0, 2, 1].into());
    assert_eq!(world.slots[0].moved_to(client), Ok(()));
    assert_eq!(world.begin(0), [1], "the proxy has a place free");
    assert_eq!(world.slots[1].moved_to(client), Ok(()));
    assert_eq!(world.slots[2].moved_to(client), Err(Over::Address));
    world.slots.clear();
    let state = world.door.state.lock().unwrap();
    assert_eq!(state.crowd.members(&client), 0);
    assert!(state.under_way.is_empty());
}

#[tokio::test]
async fn a_place_that_comes_free_is_told_while_somebody_waits_and_only_then() {
    let mut world = World::new(1, 1).await;
    world.arrives(1, 0).await;
    world.begin(0);
    world.slots.clear();
    let told = |world: &World| {
        let freed = std::pin::pin!(world.door.freed());
        freed
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    };
    assert!(!told(&world), "nobody waits");
    world.arrives(1, 0).await;
    world.begin(0);
    world.arrives(2, 0).await;
    assert!(world.begin(0).is_empty());
    assert!(!told(&world), "no place is free");
    world.slots.clear();
    assert!(told(&world));
    assert_eq!(world.begin(0), [2]);
}
