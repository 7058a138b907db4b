//! The future that moves a connection's bytes, and who polls it.
//!
//! A task of its own polls it whenever there is something to do, so nothing that the application does
//! can stop it. While the application waits for a message, or fills the outbox, its own poll drives
//! the connection too. Then a message need not cross from one task to another: it is read by who
//! processes it, and written by who sends it.
//!
//! The application never owns the connection. Everything that wakes the future wakes the task. Only
//! work that the application left undone in the middle, because it comes back for more, is left to it
//! for [`DRIVE_WATCH`]. If it does not come back by then, the task goes on.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, Sleep, sleep},
};

use super::Shared;
use crate::{defaults::DRIVE_WATCH, time::later};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What drives a connection.
#[derive(Default)]
pub(crate) struct Driver {
    /// `None` before it starts and after it has ended.
    work: Mutex<Option<Work>>,
    signal: Arc<Signal>,
    runtime: OnceLock<Handle>,
    /// Only the pump runs now. While a connection is dialed or set up, the user's code runs in the
    /// future, and only the task may poll it.
    steady: AtomicBool,
    /// The application polls the future now.
    by_application: AtomicBool,
    /// How often the application has driven.
    turns: AtomicU64,
    /// The application's last turn reached its bound. The application comes back to go on.
    undone: AtomicBool,
    /// The application waits in `recv`.
    waits: AtomicBool,
    /// Work was left to the application, and the task has to begin to watch it.
    watch: AtomicBool,
    /// The task watches whether the application comes back.
    watched: AtomicBool,
    /// The task found the future in use. It is woken when the future is free.
    missed: AtomicBool,
    /// The task was dropped.
    abandoned: AtomicBool,
}

/// What the future's waker does.
#[derive(Default)]
struct Signal {
    /// There may be something to do.
    due: AtomicBool,
    task: OnceLock<Waker>,
}

impl Signal {
    fn wake_task(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::Release);
        self.wake_task();
    }
}

impl Driver {
    /// Drives the connection by a new task, until `work` has ended.
    pub(crate) fn spawn(
        shared: &Arc<Shared>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let driver = &shared.driver;
        *driver.work.lock().unwrap() = Some(Box::pin(work));
        driver.signal.due.store(true, Ordering::Release);
        let _ = driver.runtime.set(Handle::current());
        tokio::spawn(Task {
            shared: shared.clone(),
            seen: 0,
            alarm: None,
        })
    }

    /// Allows the application to drive until the guard is dropped.
    pub(crate) fn steady(&self) -> Steady<'_> {
        self.steady.store(true, Ordering::Release);
        Steady(self)
    }

    /// Pending while the application drives. Then the task is woken.
    pub(crate) fn poll_in_task(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.by_application.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The turn's bound is reached, and there is more to do. `woken`: the application was told that it
    /// has something to receive.
    ///
    /// An application that waited for that goes on by itself. Else the task yields to every task that
    /// is ready, so that messages are received while they are in the processor's cache.
    pub(crate) fn go_on(&self, woken: bool, cx: &mut Context<'_>) {
        let by_application = self.by_application.load(Ordering::Acquire);
        if by_application || (self.waits.swap(false, Ordering::AcqRel) && woken) {
            self.undone.store(true, Ordering::SeqCst);
            let begins = !by_application && !self.watched.swap(true, Ordering::SeqCst);
            self.watch.fetch_or(begins, Ordering::AcqRel);
        } else {
            _ = pin!(tokio::task::yield_now()).poll(cx);
        }
    }

    /// The application has something to receive, and comes back for more.
    pub(crate) fn come_back(&self) {
        if self.undone.load(Ordering::Acquire) && !self.watched.swap(true, Ordering::SeqCst) {
            self.watch.store(true, Ordering::Release);
            self.signal.wake_task();
        }
    }

    /// The application does not come back for what its turns left undone.
    pub(crate) fn leave_to_task(&self) {
        if self.undone.load(Ordering::Acquire) {
            self.signal.due.store(true, Ordering::Release);
            self.signal.wake_task();
        }
    }

    /// The application begins or ends to wait in `recv`.
    #[inline]
    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
    }

    /// Whether [`drive`](Self::drive) may find something to do.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.signal.due.load(Ordering::Acquire) || self.undone.load(Ordering::Acquire)
    }

    /// Runs one turn in the application's poll, if there is something to do and nobody else does it.
    /// Returns whether it did.
    pub(crate) fn drive(&self) -> bool {
        if !self.is_due() || !self.steady.load(Ordering::Acquire) {
            return false;
        }
        let Some(mut work) = self.try_work() else {
            return false;
        };
        let ended = match self.steady.load(Ordering::Acquire) {
            true => self.turn(&mut work),
            false => None,
        };
        drop(work);
        drop(ended);
        self.let_go();
        true
    }

    /// Returns the future if it has ended or panicked. A panic ends the connection, as it does in the
    /// task, and not the application.
    fn turn(&self, work: &mut MutexGuard<'_, Option<Work>>) -> Option<Work> {
        let future = work.as_mut()?;
        let _runtime = self.runtime.get().map(Handle::enter);
        self.by_application.store(true, Ordering::Release);
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll_work(future)));
        self.by_application.store(false, Ordering::Release);
        self.turns.fetch_add(1, Ordering::Relaxed);
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(())) | Err(_) => {
                self.signal.wake_task();
                work.take()
            }
        }
    }

    fn poll_work(&self, work: &mut Work) -> Poll<()> {
        self.signal.due.store(false, Ordering::Release);
        self.undone.store(false, Ordering::Release);
        let waker = Waker::from(self.signal.clone());
        work.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// After the application's turn: tells the task if it came meanwhile.
    fn let_go(&self) {
        fence(Ordering::SeqCst);
        if self.missed.swap(false, Ordering::AcqRel) {
            self.signal.wake_task();
        }
        if self.abandoned.load(Ordering::Acquire) {
            self.end();
        }
    }

    /// Drops the future, unless the application polls it now. Then the application does that next.
    fn end(&self) {
        let work = self.try_work().and_then(|mut work| work.take());
        drop(work);
    }

    /// The future, unless somebody polls it now. After a panic of the task it is there to be dropped.
    fn try_work(&self) -> Option<MutexGuard<'_, Option<Work>>> {
        match self.work.try_lock() {
            Ok(work) => Some(work),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The future for the task. `None`: the application polls it now, and wakes the task afterwards.
    fn take_turn(&self) -> Option<MutexGuard<'_, Option<Work>>> {
        if let Some(work) = self.try_work() {
            return Some(work);
        }
        self.missed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        // The application may have let it go just before.
        self.try_work()
    }
}

/// Allows the application to drive.
pub(crate) struct Steady<'d>(&'d Driver);

impl Drop for Steady<'_> {
    fn drop(&mut self) {
        self.0.steady.store(false, Ordering::Release);
    }
}

/// The task of a connection.
struct Task {
    shared: Arc<Shared>,
    /// How often the application had driven when it was last looked at.
    seen: u64,
    /// The next look.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Task {
    /// Begins to watch, if this turn left work to the application.
    fn watch_if_left(&mut self, cx: &mut Context<'_>) {
        if self.shared.driver.watch.load(Ordering::Acquire) {
            self.watch(cx);
        }
    }

    /// Looks whether the application still drives. If it has stopped, what it left undone is due.
    fn watch(&mut self, cx: &mut Context<'_>) {
        let driver = &self.shared.driver;
        let turns = driver.turns.load(Ordering::Relaxed);
        if !driver.watch.swap(false, Ordering::AcqRel) {
            let Some(alarm) = &mut self.alarm else {
                return;
            };
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            if turns == self.seen {
                self.alarm = None;
                // The application marks what it leaves, and then looks whether it is watched.
                driver.watched.swap(false, Ordering::SeqCst);
                if driver.undone.load(Ordering::SeqCst) {
                    driver.signal.due.store(true, Ordering::Release);
                }
                return;
            }
        }
        self.seen = turns;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep(DRIVE_WATCH)));
        alarm.as_mut().reset(later(Instant::now(), DRIVE_WATCH));
        let _ = alarm.as_mut().poll(cx);
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.shared
            .driver
            .signal
            .task
            .get_or_init(|| cx.waker().clone());
        self.watch(cx);
        let driver = &self.shared.driver;
        let Some(mut work) = driver.take_turn() else {
            return Poll::Pending;
        };
        driver.missed.store(false, Ordering::Release);
        let Some(future) = work.as_mut() else {
            return Poll::Ready(());
        };
        // What was left undone is due as well, unless the task watches whether the application comes.
        let left = driver.undone.load(Ordering::SeqCst) && !driver.watched.load(Ordering::SeqCst);
        if !left && !driver.signal.due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let polled = driver.poll_work(future);
        let ended = match polled {
            Poll::Pending => None,
            Poll::Ready(()) => work.take(),
        };
        drop(work);
        drop(ended);
        self.watch_if_left(cx);
        polled
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let driver = &self.shared.driver;
        driver.abandoned.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        driver.end();
    }
}
