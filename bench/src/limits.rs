//! How many connections the system lets a process have.

/// The descriptors that a process needs in addition to its connections.
#[cfg(unix)]
const OTHER_FILES: u64 = 64;

/// Raises this process's limit of file descriptors as far as the system allows. Returns for how many
/// connections it is enough.
#[cfg(unix)]
pub(crate) fn connections() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let files = if raised { hard } else { soft };
    files.saturating_sub(OTHER_FILES)
}

/// No limit is known here.
#[cfg(not(unix))]
pub(crate) fn connections() -> u64 {
    u64::MAX
}
