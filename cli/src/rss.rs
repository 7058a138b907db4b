//! The peak memory of a process.

/// Peak resident set size of this process in bytes; `None` if the system does not say.
#[cfg(target_os = "linux")]
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    // Not getrusage: its peak survives exec, so it counts the program that started this one.
    high_water_mark(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Peak resident set size of another process in bytes. `None` if the system does not say, or if the
/// process has ended.
pub(crate) fn peak_rss_bytes_of(pid: u32) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    high_water_mark(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// `VmHWM` of a /proc/PID/status (proc_pid_status(5)).
fn high_water_mark(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Peak resident set size of this process in bytes; `None` if the system does not say.
#[cfg(target_os = "macos")]
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    // macOS counts bytes where other systems count KiB (getrusage(2)).
    u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()
}

/// Peak resident set size of this process in bytes; `None` if the system does not say.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_follows_what_is_allocated() {
        let before = peak_rss_bytes().unwrap();
        assert!(before > 100 << 10, "{before}");
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_rss_bytes().unwrap();
        assert!(after >= 64 << 20, "{after} after {} bytes", held.len());
    }

    #[test]
    fn a_status_without_the_mark_is_no_answer() {
        assert_eq!(
            high_water_mark("VmPeak: 1 kB\nVmHWM:\t  2040 kB\n"),
            Some(2040 * 1024)
        );
        assert_eq!(high_water_mark("VmPeak: 1 kB\n"), None);
        assert_eq!(high_water_mark("VmHWM: many\n"), None);
    }
}
