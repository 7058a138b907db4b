//! A process on a core.

/// Binds this process to `core`. `None` where the system does not allow it.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: usize) -> Option<usize> {
    use nix::{
        sched::{CpuSet, sched_setaffinity},
        unistd::Pid,
    };
    let mut set = CpuSet::new();
    set.set(core).ok()?;
    sched_setaffinity(Pid::from_raw(0), &set).ok()?;
    Some(core)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_core: usize) -> Option<usize> {
    None
}
