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
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, Sleep, sleep},
};

use super::Shared;
use crate::{
    defaults::{DRIVE_WATCH, TASK_TURNS},
    time::later,
};

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
    /// The application has driven since the task last looked.
    turned: AtomicBool,
    /// The application's last turn reached its bound. The application comes back to go on.
    undone: AtomicBool,
    /// The task's last turn reached its bound, and the application still waits. The task goes on at
    /// once.
    again: AtomicBool,
    /// The application waits in `recv`.
    waits: AtomicBool,
    /// Work was left to the application, and the task watches whether it comes back.
    watched: AtomicBool,
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
    /// An application that waited for that goes on by itself. For one that waits still, because a long
    /// message is not whole, the task goes on at once. Else the task yields to every task that is ready,
    /// so that messages are received while they are in the processor's cache. Until it is back, whoever
    /// sends goes on.
    pub(crate) fn go_on(&self, woken: bool, cx: &mut Context<'_>) {
        let by_application = self.by_application.load(Ordering::Acquire);
        if by_application || (woken && self.waits.swap(false, Ordering::AcqRel)) {
            self.undone.store(true, Ordering::SeqCst);
            self.watched.fetch_or(!by_application, Ordering::SeqCst);
        } else if !woken {
            self.again.store(true, Ordering::Relaxed);
        } else {
            self.signal.due.store(true, Ordering::Release);
            _ = pin!(tokio::task::yield_now()).poll(cx);
        }
    }

    /// The application has something to receive, and comes back for more.
    pub(crate) fn come_back(&self) {
        if self.undone.load(Ordering::Acquire) && !self.watched.swap(true, Ordering::SeqCst) {
            self.signal.wake_task();
        }
    }

    /// The application does not come back for what its turns left undone.
    pub(crate) fn leave_to_task(&self) {
        if self.undone.load(Ordering::Acquire) {
            self.signal.wake_by_ref();
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

    /// As [`drive`](Self::drive), by who sends and does not come back.
    pub(crate) fn drive_once(&self) {
        self.drive();
        self.leave_to_task();
    }

    /// Returns the future if it has ended or panicked. A panic ends the connection, as it does in the
    /// task, and not the application.
    fn turn(&self, work: &mut MutexGuard<'_, Option<Work>>) -> Option<Work> {
        let future = work.as_mut()?;
        let _runtime = self.runtime.get().map(Handle::enter);
        self.by_application.store(true, Ordering::Release);
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll_work(future)));
        self.by_application.store(false, Ordering::Release);
        self.turned.store(true, Ordering::Relaxed);
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(())) | Err(_) => {
                // The task has to end too.
                self.signal.due.store(true, Ordering::Release);
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

    /// Runs turns in the task, while there is more to do at once and the application has to wait for it.
    /// Such a change to another task would cost more than the turn.
    fn turns_of_task(&self, work: &mut Work, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TASK_TURNS {
            let polled = self.poll_work(work);
            if polled.is_ready() || !self.again.swap(false, Ordering::Relaxed) {
                return polled;
            }
        }
        self.signal.due.store(true, Ordering::Release);
        _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// After the application's turn. What came due meanwhile is the task's, which may have found the
    /// future in use.
    fn let_go(&self) {
        fence(Ordering::SeqCst);
        if self.signal.due.load(Ordering::Acquire) {
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
    /// While the application is watched: the next look.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Task {
    /// Looks whether the application still drives. If it has stopped, what it left undone is due.
    fn watch(&mut self, cx: &mut Context<'_>) {
        let driver = &self.shared.driver;
        if !driver.watched.load(Ordering::Acquire) {
            return;
        }
        if let Some(alarm) = &mut self.alarm {
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            if !driver.turned.load(Ordering::Relaxed) {
                self.alarm = None;
                // The application marks what it leaves, and then looks whether it is watched.
                driver.watched.swap(false, Ordering::SeqCst);
                if driver.undone.load(Ordering::SeqCst) {
                    driver.signal.due.store(true, Ordering::Release);
                }
                return;
            }
        }
        driver.turned.store(false, Ordering::Relaxed);
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
        let task = &self.shared.driver.signal.task;
        task.get_or_init(|| cx.waker().clone());
        self.watch(cx);
        let driver = &self.shared.driver;
        // What came due is seen by the application when it lets the future go.
        fence(Ordering::SeqCst);
        let Some(mut work) = driver.try_work() else {
            return Poll::Pending;
        };
        let Some(future) = work.as_mut() else {
            return Poll::Ready(());
        };
        if !driver.signal.due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let polled = driver.turns_of_task(future, cx);
        let ended = match polled {
            Poll::Pending => None,
            Poll::Ready(()) => work.take(),
        };
        drop(work);
        drop(ended);
        if self.alarm.is_none() {
            // This turn may have left work to the application.
            self.watch(cx);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Once a sender did not see that the task had yielded with more to do. It filled the outbox to its
    /// limit, and then waited for the task.
    #[tokio::test]
    async fn a_sender_goes_on_where_the_task_has_yielded() {
        let driver = Driver::default();
        assert!(!driver.is_due());
        let waker = Waker::from(driver.signal.clone());
        driver.go_on(true, &mut Context::from_waker(&waker));
        assert!(driver.is_due());
    }

    /// Once the task yielded after each part of a long message. That woke an idle thread each time.
    #[tokio::test]
    async fn the_task_reads_a_long_message_without_yielding_up_to_a_bound() {
        for (parts, turns) in [(1, 1), (3, 3), (usize::MAX, TASK_TURNS)] {
            let driver = Arc::new(Driver::default());
            let polls = Arc::new(Mutex::new(0));
            let (inner, count) = (driver.clone(), polls.clone());
            let mut work: Work = Box::pin(poll_fn(move |cx| {
                let mut polls = count.lock().unwrap();
                *polls += 1;
                if *polls < parts {
                    inner.go_on(false, cx);
                }
                Poll::Pending
            }));
            let waker = Waker::from(driver.signal.clone());
            let polled = driver.turns_of_task(&mut work, &mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            assert_eq!(*polls.lock().unwrap(), turns);
            assert_eq!(driver.is_due(), parts > turns, "what is left is due");
        }
    }
}
