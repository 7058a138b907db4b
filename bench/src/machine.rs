//! The machine that the figures were measured on.

use serde::Serialize;

use crate::job::Outcome;

#[derive(Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    system: String,
    default_congestion_control: String,
    /// The one measured with.
    congestion_control: String,
    /// Whether the suite runs in a network namespace of its own.
    namespace: bool,
    profile: &'static str,
}

impl Machine {
    /// Looks, and moves to where measuring is best.
    pub(crate) fn prepare(congestion: &str) -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim())
        });
        let release = read("/proc/sys/kernel/osrelease");
        let default_congestion_control = read("/proc/sys/net/ipv4/tcp_congestion_control");
        let default_congestion_control = default_congestion_control.trim();
        Machine {
            namespace: move_in(default_congestion_control, congestion),
            congestion_control: congestion.to_owned(),
            processor: model.unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, release.trim()),
            default_congestion_control: default_congestion_control.to_owned(),
            profile: match cfg!(debug_assertions) {
                true => "DEBUG BUILD, the figures mean nothing",
                false => "release",
            },
        }
    }

    pub(crate) fn line(&self) -> String {
        let Machine {
            processor,
            cores,
            system,
            default_congestion_control,
            congestion_control,
            namespace,
            profile,
        } = self;
        let namespace = match namespace {
            true => "in a network namespace of its own",
            false => "in the system's network namespace",
        };
        format!(
            "machine: {processor}, {cores} cores, {system}, {profile}; the system's congestion \
             control is {default_congestion_control:?}, measured with {congestion_control:?} {namespace}"
        )
    }
}

/// Whether this process is now in a namespace whose connections begin with the right congestion
/// control; where it is the default, there is no need.
#[cfg(target_os = "linux")]
fn move_in(default: &str, congestion: &str) -> bool {
    default != congestion && crate::namespace::enter(congestion)
}

#[cfg(not(target_os = "linux"))]
fn move_in(_default: &str, _congestion: &str) -> bool {
    false
}

/// The settings that a run's processes and sockets really had.
pub(crate) fn setting(outcome: &Outcome) -> String {
    let core = |pinned: Option<usize>| match pinned {
        Some(core) => format!("on core {core}"),
        None => "not pinned".to_owned(),
    };
    let mut sockets = [&outcome.server.sockets[..], &outcome.client.sockets[..]].concat();
    sockets.sort();
    sockets.dedup();
    let sockets: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let nodelay = if socket.nodelay { "with" } else { "without" };
            let from = match &socket.switched_from {
                Some(from) => format!(" (dialed with {from}, whose pacing may stay)"),
                None => String::new(),
            };
            format!("{}{from} {nodelay} TCP_NODELAY", socket.congestion_control)
        })
        .collect();
    format!(
        "server {}, client {}, TCP {}",
        core(outcome.server.pinned),
        core(outcome.client.pinned),
        match sockets[..] {
            [] => "as the system sets it".to_owned(),
            _ => sockets.join(" and "),
        }
    )
}
