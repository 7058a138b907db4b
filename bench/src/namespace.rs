//! A network namespace of the suite's own.
//!
//! A library that dials by itself gets a socket with the system's congestion control. Changing it
//! afterwards does not undo what BBR left: the socket stays paced, which costs a fifth of its
//! throughput. In a namespace of its own the suite can let the routes of loopback name the
//! congestion control, which then holds from the first packet.

use std::{fs::File, process::Command};

use nix::sched::{CloneFlags, setns, unshare};

/// Moves this process, and those that it will start, where the system lets it; whether it did.
/// Connections there have `congestion`.
pub(crate) fn enter(congestion: &str) -> bool {
    let Ok(before) = File::open("/proc/self/ns/net") else {
        return false;
    };
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        return false;
    }
    let ready = set_up(congestion).is_some();
    if !ready {
        let back = setns(&before, CloneFlags::CLONE_NEWNET);
        back.expect("the namespace it came from");
    }
    ready
}

fn set_up(congestion: &str) -> Option<()> {
    ip("link set lo up")?;
    for destination in ["127.0.0.0/8", "127.0.0.1"] {
        ip(&format!(
            "route replace local {destination} dev lo proto kernel scope host src 127.0.0.1 \
             table local congctl {congestion}"
        ))?;
    }
    Some(())
}

fn ip(arguments: &str) -> Option<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    output.ok()?.status.success().then_some(())
}
