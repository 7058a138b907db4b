//! Runs many worlds, each from its seed, on all cores that there are.
#![allow(unreachable_pub)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happened in worlds, summed up.
pub trait Tally: Default + Send {
    fn add(&mut self, other: &Self);
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the worlds of the seeds below `seeds`, until one fails.
pub fn run_all<T: Tally>(
    seeds: u64,
    run: impl Fn(u64) -> Result<T, String> + Sync,
) -> Result<T, String> {
    let next = AtomicU64::new(0);
    let result = Mutex::new(Ok(T::default()));
    let work = || {
        let mut tally = T::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            match run(seed) {
                Ok(one) => tally.add(&one),
                Err(failure) => {
                    next.store(seeds, Ordering::Relaxed);
                    *result.lock().unwrap() = Err(failure);
                    return;
                }
            }
            if (seed + 1).is_multiple_of(100_000) {
                eprintln!("{} worlds", seed + 1);
            }
        }
        if let Ok(total) = &mut *result.lock().unwrap() {
            total.add(&tally);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    result.into_inner().unwrap()
}
