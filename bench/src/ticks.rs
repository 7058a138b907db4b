//! A steady beat. It is finer than the runtime's timer, which has a resolution of a millisecond.

use std::time::{Duration, Instant};

use crate::Result;

/// The moments `start + n × period`, for n from 1.
pub(crate) struct Ticks {
    pub(crate) start: Instant,
    pub(crate) period: Duration,
    timer: Timer,
}

impl Ticks {
    pub(crate) fn start(period: Duration) -> Result<Ticks> {
        // Taken before the timer starts, so that the timer never fires too early.
        let start = Instant::now();
        let timer = Timer::every(period)?;
        Ok(Ticks {
            start,
            period,
            timer,
        })
    }

    /// Waits until tick `number` is due. Safe to cancel.
    pub(crate) async fn due(&mut self, number: u32) -> Result<()> {
        while Instant::now() < self.start + self.period * number {
            self.timer.wait().await?;
        }
        Ok(())
    }
}

/// A timerfd. Tokio waits for it as for a pipe, whose reading is the same.
#[cfg(target_os = "linux")]
struct Timer(tokio::net::unix::pipe::Receiver);

#[cfg(target_os = "linux")]
impl Timer {
    fn every(period: Duration) -> Result<Timer> {
        use rustix::time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
            timerfd_settime,
        };
        use tokio::net::unix::pipe::Receiver;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = period.try_into()?;
        let times = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(Timer(Receiver::from_owned_fd_unchecked(timer)?))
    }

    async fn wait(&mut self) -> Result<()> {
        self.0.readable().await?;
        // The count of expirations does not matter.
        let _ = self.0.try_read(&mut [0; 8]);
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
struct Timer(tokio::time::Interval);

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn every(period: Duration) -> Result<Timer> {
        Ok(Timer(tokio::time::interval(period)))
    }

    async fn wait(&mut self) -> Result<()> {
        self.0.tick().await;
        Ok(())
    }
}
