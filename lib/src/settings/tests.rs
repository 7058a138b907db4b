//! Budgets, the accounts that draw from them, and who has to go when one is used up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use proptest::prelude::*;

use super::{Account, Budget, Share};
use crate::defaults::BUDGET_FLOOR_BYTES as FLOOR;

const MIB: usize = 1 << 20;

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn account(budget: &Budget) -> Account {
    Account::new(Some(budget.clone()))
}

/// Whether its task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, SeqCst)
    }
}

#[derive(Clone, Debug)]
enum Act {
    Cover(usize, usize),
    CoverUrgently(usize, usize),
    Relax(usize, usize),
    Settle(usize, usize),
    PassOn(usize, usize),
    EndPassing(usize),
    Replace(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let share = 0..SHARES;
    let bytes = prop_oneof![0..10_000usize, 0..300_000usize, 0..3 * MIB];
    let act = (0..10u8, share, bytes).prop_map(|(kind, share, bytes)| match kind {
        0..=2 => Act::Cover(share, bytes),
        3..=4 => Act::CoverUrgently(share, bytes),
        5 => Act::Relax(share, bytes),
        6 => Act::Settle(share, bytes),
        7 => Act::PassOn(share, bytes),
        8 => Act::EndPassing(share),
        _ => Act::Replace(share),
    });
    prop::collection::vec(act, 1..200)
}

const SHARES: usize = 12;

proptest! {
    #[test]
    fn budgets_are_never_exceeded_by_more_than_floors_and_get_all_back(acts in acts()) {
        let process = Budget::new(4 * MIB);
        let one = Budget::within(&process, 2 * MIB);
        let two = Budget::within(&process, 3 * MIB);
        let accounts: Vec<_> = [&one, &two, &process, &two].map(account).into_iter().collect();
        let new = |at: usize| {
            let account = &accounts[at % accounts.len()];
            match at % 3 {
                0 => account.lasting_share(),
                _ => account.share(),
            }
        };
        let mut shares: Vec<Share> = (0..SHARES).map(new).collect();
        for act in acts {
            match act {
                Act::Cover(at, bytes) => _ = shares[at].cover(bytes),
                Act::CoverUrgently(at, bytes) => {
                    _ = shares[at].poll_cover_urgently(bytes, &noop());
                }
                Act::Relax(at, bytes) => shares[at].relax(bytes),
                Act::Settle(at, bytes) => shares[at].settle(bytes),
                Act::PassOn(at, bytes) if at % 3 > 0 => shares[at].pass_on(bytes),
                Act::PassOn(..) => {}
                Act::EndPassing(at) => shares[at].end_passing(),
                Act::Replace(at) => shares[at] = new(at),
            }
            for budget in [&process, &one, &two] {
                prop_assert!(budget.used() <= budget.limit() + SHARES * FLOOR);
            }
            let held: Vec<_> = accounts.iter().map(Account::held).collect();
            prop_assert_eq!(one.used(), held[0]);
            prop_assert_eq!(two.used(), held[1] + held[3]);
            prop_assert_eq!(process.used(), held.iter().sum::<usize>());
        }
        drop(shares);
        for budget in [&process, &one, &two] {
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn what_is_drawn_is_at_most_a_quarter_or_a_page_more_than_what_is_held(bytes in 0..40 * MIB) {
        let budget = Budget::new(100 * MIB);
        let mut share = account(&budget).share();
        prop_assert!(share.cover(bytes));
        prop_assert!(budget.used() >= bytes);
        prop_assert!(budget.used() <= bytes + (bytes / 4).max(4096), "{}", budget.used());
    }
}

#[test]
fn floors_are_never_refused_but_count() {
    let process = Budget::new(0);
    let address = Budget::within(&process, 0);
    let mut shares: Vec<_> = (0..10).map(|_| account(&address).share()).collect();
    for share in &mut shares {
        assert!(share.cover(1));
        assert!(share.cover(FLOOR));
        assert!(!share.cover(FLOOR + 1));
        assert!(share.poll_cover_urgently(FLOOR + 1, &noop()).is_pending());
    }
    assert_eq!((address.used(), process.used()), (10 * FLOOR, 10 * FLOOR));
}

#[test]
fn single_message_is_covered_anyway_and_others_see_it() {
    let budget = Budget::new(MIB);
    let (one, two) = (account(&budget), account(&budget));
    let (mut one, mut two) = (one.share(), two.share());
    one.cover_anyway(10 * MIB);
    assert_eq!(budget.used(), 10 * MIB);
    assert!(!two.cover(FLOOR + 1), "others see it");
    drop(one);
    assert!(two.cover(FLOOR + 1));
}

#[test]
fn account_without_a_budget_is_never_refused_and_knows_its_sum() {
    let account = Account::new(None);
    let (mut one, mut two) = (account.share(), account.lasting_share());
    assert!(one.cover(100 * MIB));
    assert!(two.cover(50 * MIB));
    assert_eq!(account.held(), 150 * MIB);
    drop((one, two));
    assert_eq!(account.held(), 0);
}

#[test]
fn what_waits_leaves_the_last_quarter_to_what_cannot() {
    let budget = Budget::new(4 * MIB);
    let (mut queue, mut message) = (account(&budget).share(), account(&budget).share());
    assert!(queue.cover(3 * MIB));
    assert!(!queue.cover(3 * MIB + 1));
    assert!(message.poll_cover_urgently(MIB, &noop()).is_ready());
    assert!(message.poll_cover_urgently(MIB + 1, &noop()).is_pending());
}

#[test]
fn draw_that_the_parent_refuses_leaves_nothing_behind_below() {
    let process = Budget::new(2 * MIB);
    let address = Budget::within(&process, 8 * MIB);
    let mut other = account(&process).share();
    assert!(other.cover(MIB));
    let mut share = account(&address).share();
    assert!(!share.cover(MIB));
    assert_eq!((address.used(), process.used()), (0, MIB));
    // The address's own bound counts too.
    drop(other);
    let tight = Budget::within(&process, MIB);
    let mut share = account(&tight).share();
    assert!(!share.cover(MIB));
    assert!(share.cover(MIB / 2));
    assert_eq!((tight.used(), process.used()), (MIB / 2, MIB / 2));
}

#[test]
fn steady_small_traffic_draws_nothing_and_idle_gives_all_back() {
    let budget = Budget::new(MIB);
    let mut share = account(&budget).share();
    for bytes in [100, 2000, 0, 4000, 0, 1] {
        assert!(share.cover(bytes));
        share.relax(bytes);
        assert_eq!(budget.used(), 4096);
    }
    // A queue that fills and empties keeps what it needs again.
    assert!(share.cover(60_000));
    let drawn = budget.used();
    share.relax(0);
    assert_eq!(budget.used(), drawn);
    share.settle(5000);
    assert_eq!(budget.used(), 8192);
    share.settle(0);
    assert_eq!(budget.used(), 0);
    // Much is given back at once.
    assert!(share.cover(700_000));
    share.relax(100);
    assert_eq!(budget.used(), 4096);
}

#[test]
fn refused_share_is_woken_when_bytes_come_back() {
    let process = Budget::new(4 * MIB);
    let address = Budget::within(&process, 4 * MIB);
    let woken = Arc::new(Woken::default());
    let waker = woken.clone().into();
    let cx = Context::from_waker(&waker);
    let mut filler = account(&process).share();
    let mut share = account(&address).share();
    assert!(share.poll_refused(&cx).is_pending(), "nothing was refused");
    assert!(filler.cover(3 * MIB));
    assert!(!share.cover(MIB));
    assert!(share.poll_refused(&cx).is_pending());
    assert!(!woken.take());
    filler.settle(MIB);
    assert!(woken.take());
    assert!(share.poll_refused(&cx).is_ready());
    assert_eq!(address.used(), MIB);
    assert!(
        share.poll_refused(&cx).is_pending(),
        "it has what it wanted"
    );
    filler.settle(0);
    assert!(!woken.take(), "nobody waits any more");
}

/// Many threads draw, wait and give back: a wake-up that is missed leaves this hanging.
#[test]
fn no_wake_up_is_missed() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let process = Budget::new(MIB);
    let address = Budget::within(&process, MIB / 2);
    let rounds = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..6)
        .map(|at| {
            let budget = if at % 2 == 0 { &process } else { &address };
            let account = account(budget);
            let rounds = rounds.clone();
            thread::spawn(move || {
                let waker = Arc::new(Unpark(thread::current())).into();
                let cx = Context::from_waker(&waker);
                let mut share = account.share();
                for _ in 0..2000 {
                    if !share.cover(300_000) {
                        while share.poll_refused(&cx).is_pending() {
                            thread::park();
                        }
                    }
                    share.settle(0);
                    rounds.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    assert_eq!(rounds.load(SeqCst), 12_000);
    assert_eq!((process.used(), address.used()), (0, 0));
}

#[test]
fn who_holds_most_goes_one_at_a_time() {
    let budget = Budget::new(16 * MIB);
    let accounts: Vec<_> = (0..5).map(|_| account(&budget)).collect();
    let mut candidates: Vec<_> = accounts.iter().map(|it| Some(it.evictable())).collect();
    let mut shares: Vec<_> = accounts.iter().map(|it| Some(it.share())).collect();
    let sizes = [MIB, 5 * MIB, 3 * MIB, 2 * MIB, 4 * MIB];
    for (share, size) in shares.iter_mut().zip(sizes) {
        let share = share.as_mut().unwrap();
        assert!(share.poll_cover_urgently(size, &noop()).is_ready());
    }
    let mut queue = accounts[0].lasting_share();
    queue.cover_anyway(MIB);
    let mut needy = account(&budget).share();
    let gone = |needy: &mut Share, candidates: &mut [Option<super::Evictable>]| {
        for _ in 0..3 {
            assert!(needy.poll_cover_urgently(3 * MIB, &noop()).is_pending());
        }
        let told = candidates.iter_mut().enumerate().filter_map(|(at, it)| {
            match it.as_mut()?.poll_evicted(&noop()) {
                Poll::Ready(held) => Some((at, held)),
                Poll::Pending => None,
            }
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(gone(&mut needy, &mut candidates), [(1, 5 * MIB)]);
    assert_eq!(
        gone(&mut needy, &mut candidates),
        [(1, 5 * MIB)],
        "no other"
    );
    // Its bytes are back, and taken by somebody else: the next one has to go.
    shares[1] = None;
    queue.cover_anyway(6 * MIB);
    assert_eq!(
        gone(&mut needy, &mut candidates),
        [(1, 5 * MIB), (4, 4 * MIB)]
    );
    candidates[1] = None;
    shares[4] = None;
    candidates[4] = None;
    assert!(needy.poll_cover_urgently(3 * MIB, &noop()).is_ready());
    let left = candidates.iter_mut().flatten();
    for candidate in left {
        assert!(candidate.poll_evicted(&noop()).is_pending());
    }
}

#[test]
fn who_is_told_to_go_and_who_waits_for_it_are_woken() {
    let budget = Budget::new(4 * MIB);
    let (large, small) = (account(&budget), account(&budget));
    let (told, room) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let wakers: [Waker; 2] = [told.clone().into(), room.clone().into()];
    let (told_cx, room_cx) = (
        Context::from_waker(&wakers[0]),
        Context::from_waker(&wakers[1]),
    );
    let (mut going, mut staying) = (large.evictable(), small.evictable());
    let (mut held, mut needy) = (large.share(), small.share());
    assert!(held.poll_cover_urgently(4 * MIB, &noop()).is_ready());
    assert!(going.poll_evicted(&told_cx).is_pending());
    assert!(staying.poll_evicted(&told_cx).is_pending());
    assert!(needy.poll_cover_urgently(MIB, &room_cx).is_pending());
    assert!(told.take());
    assert!(going.poll_evicted(&told_cx).is_ready());
    assert!(!room.take());
    drop(held);
    assert!(room.take());
    assert!(needy.poll_cover_urgently(MIB, &room_cx).is_ready());
    drop(going);
    assert!(staying.poll_evicted(&told_cx).is_pending());
}

/// What its application still has to take does not come back when a connection ends.
#[test]
fn bytes_that_would_not_come_back_do_not_make_anybody_go() {
    let budget = Budget::new(4 * MIB);
    let (reader, sender) = (account(&budget), account(&budget));
    let (mut slow, mut own) = (reader.evictable(), sender.evictable());
    let mut inbox = reader.lasting_share();
    inbox.cover_anyway(4 * MIB);
    let idle = account(&budget);
    let (mut window, mut waits) = (idle.share(), idle.evictable());
    assert!(window.cover(FLOOR));
    let mut message = sender.share();
    assert!(message.cover(4096));
    assert!(own.poll_evicted(&noop()).is_pending());
    assert!(message.poll_cover_urgently(FLOOR + 1, &noop()).is_pending());
    assert_eq!(
        own.poll_evicted(&noop()),
        Poll::Ready(4096),
        "it is the one that asks"
    );
    assert!(slow.poll_evicted(&noop()).is_pending());
    assert!(
        waits.poll_evicted(&noop()).is_pending(),
        "a floor is everybody's"
    );
}

#[test]
fn full_budget_of_an_address_makes_none_of_another_go() {
    let process = Budget::new(64 * MIB);
    let (one, two) = (
        Budget::within(&process, 4 * MIB),
        Budget::within(&process, 32 * MIB),
    );
    let accounts = [account(&one), account(&one), account(&two)];
    let mut candidates = accounts.each_ref().map(Account::evictable);
    let mut shares = accounts.each_ref().map(Account::share);
    for (share, size) in shares.iter_mut().zip([3 * MIB, MIB, 30 * MIB]) {
        assert!(share.poll_cover_urgently(size, &noop()).is_ready());
    }
    assert!(shares[1].poll_cover_urgently(2 * MIB, &noop()).is_pending());
    let told = candidates
        .each_mut()
        .map(|it| it.poll_evicted(&noop()).is_ready());
    assert_eq!(told, [true, false, false]);
}

#[test]
fn message_on_its_way_to_a_queue_is_drawn_once() {
    let budget = Budget::new(4 * MIB);
    let account = account(&budget);
    let (mut message, mut queue) = (account.share(), account.lasting_share());
    assert!(message.poll_cover_urgently(3 * MIB, &noop()).is_ready());
    message.pass_on(2 * MIB);
    assert_eq!(budget.used(), 3 * MIB);
    assert!(queue.cover(2 * MIB));
    assert_eq!(budget.used(), 3 * MIB);
    message.end_passing();
    assert_eq!((budget.used(), account.held()), (3 * MIB, 3 * MIB));
    message.pass_on(MIB);
    message.end_passing();
    assert_eq!(budget.used(), 2 * MIB);
    drop(queue);
    assert_eq!(budget.used(), 0);
}

/// Once it was the largest connection of all: somebody with a thousand small ones never went.
#[test]
fn of_the_fullest_budget_somebody_goes_when_the_one_around_it_is_used_up() {
    let process = Budget::new(16 * MIB);
    let budgets = [(); 3].map(|()| Budget::within(&process, 12 * MIB));
    let [many, few, newcomer] = &budgets;
    let mut small: Vec<_> = (0..10).map(|_| account(many)).collect();
    small.push(account(few));
    let mut candidates: Vec<_> = small.iter().map(Account::evictable).collect();
    let mut shares: Vec<_> = small.iter().map(Account::share).collect();
    for (at, share) in shares.iter_mut().enumerate() {
        let size = if at < 10 { MIB } else { 4 * MIB };
        assert!(share.poll_cover_urgently(size, &noop()).is_ready());
    }
    let mut needy = account(newcomer).share();
    assert!(needy.poll_cover_urgently(4 * MIB, &noop()).is_pending());
    let told = candidates.iter_mut().enumerate();
    let told = told.filter_map(|(at, it)| it.poll_evicted(&noop()).is_ready().then_some(at));
    let told: Vec<_> = told.collect();
    assert!(told.len() == 1 && told[0] < 10, "{told:?}");
}

#[test]
fn a_budget_within_two_draws_once_from_what_they_share_and_stops_at_either() {
    let process = Budget::new(64 * MIB);
    let address = Budget::within(&process, 16 * MIB);
    let principal = Budget::within(&process, 8 * MIB);
    let both = Budget::within_all(&[address.clone(), principal.clone()]);
    let mut share = account(&both).share();
    assert!(share.cover(4 * MIB));
    let used = [&process, &address, &principal].map(Budget::used);
    assert_eq!(used, [4 * MIB; 3]);
    assert!(
        !share.cover(7 * MIB),
        "more than three quarters of the principal's"
    );
    let weak = both.downgrade();
    drop((both, share));
    assert!(weak.upgrade().is_none());
    assert_eq!([&process, &address, &principal].map(Budget::used), [0; 3]);
}

/// Once only a session that had no room to keep more asked an idle one to go. A queue that was
/// refused waited until the idle session had expired.
#[test]
fn idle_session_goes_before_a_queue_has_to_wait() {
    let budget = Budget::new(8 * MIB);
    let (away, sender) = (account(&budget), account(&budget));
    let mut idle = away.evictable();
    let mut kept = away.share();
    assert!(kept.cover(5 * MIB));
    let mut queue = sender.share();
    let mut attached = sender.evictable();
    assert!(!queue.cover(2 * MIB));
    assert!(queue.poll_refused(&noop()).is_pending());
    assert!(idle.poll_evicted(&noop()).is_pending(), "it is in use");
    idle.set_idle(true);
    assert!(idle.poll_evicted(&noop()).is_ready());
    drop((kept, idle));
    assert!(queue.poll_refused(&noop()).is_ready());
    // The same if it is idle before anybody waits.
    let mut idle = away.evictable();
    idle.set_idle(true);
    let mut kept = away.share();
    assert!(kept.cover(4 * MIB));
    assert!(!queue.cover(3 * MIB));
    assert!(queue.poll_refused(&noop()).is_pending());
    assert!(idle.poll_evicted(&noop()).is_ready());
    assert!(attached.poll_evicted(&noop()).is_pending());
}
