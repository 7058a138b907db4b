//! A network of two machines, near and far, made of network namespaces that end with the test. The
//! link between them can be cut silently.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::conversation::{Conversation, python};

/// Set in the second run of the test, which is on the near machine.
const NEAR: &str = "UNSTALL_TEST_NEAR";

const NEAR_ADDRESS: [u8; 4] = [10, 77, 0, 1];
const FAR_ADDRESS: [u8; 4] = [10, 77, 0, 2];

/// No interface has it, so packets to it are dropped.
const NOBODY: &str = "02:00:00:00:00:99";

pub(crate) struct Network {
    /// Keeps the far machine's namespace alive.
    far: Child,
}

impl Network {
    /// The network, on the near machine. The first run of a test is not there
    /// yet: it runs the test `name` again in a new namespace, fails if that
    /// fails, and gets `None`.
    pub(crate) fn enter(name: &str) -> Option<Network> {
        if std::env::var_os(NEAR).is_some() {
            return Some(Network::new());
        }
        if !permitted() {
            println!("skipped {name}: network namespaces with veth links may not be made here");
            return None;
        }
        let mut again = unshare();
        again.arg(std::env::current_exe().expect("the test's own path"));
        again.args(["--exact", name, "--nocapture"]).env(NEAR, "1");
        let status = again.status().expect("unshare was just run");
        assert!(status.success(), "{name} failed in its network namespace");
        None
    }

    fn new() -> Network {
        ip(None, "link set lo up");
        ip(None, "link add near type veth peer name far");
        let mut hold = Command::new("unshare");
        hold.args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null());
        let far = hold.spawn().expect("unshare exists");
        // The child is in this namespace until unshare(1) has made the new one.
        let namespace =
            |pid: String| fs::read_link(PathBuf::from("/proc").join(pid).join("ns/net"));
        let ours = namespace("self".to_owned()).expect("procfs");
        let began = Instant::now();
        while namespace(far.id().to_string()).is_ok_and(|theirs| theirs == ours) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "no second namespace"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let network = Network { far };
        ip(None, &format!("link set far netns {}", network.far.id()));
        for (on, name, address) in [
            (None, "near", NEAR_ADDRESS),
            (Some(&network), "far", FAR_ADDRESS),
        ] {
            ip(
                on,
                &format!("address add {}/24 dev {name}", IpAddr::from(address)),
            );
            ip(on, &format!("link set {name} up"));
        }
        network
    }

    /// A conversation of a server on the far machine with a client on this one.
    pub(crate) fn conversation(&self, server: &str, client: &str) -> Conversation {
        let python = python();
        let mut serve = self.there(python.get_program().to_str().expect("UTF-8"));
        serve.env("PYTHONDONTWRITEBYTECODE", "1");
        Conversation::between(serve, FAR_ADDRESS.into(), server, client)
    }

    /// Cuts the link silently: from now on nothing passes.
    pub(crate) fn cut(&self) {
        let cut = |on, peer: [u8; 4], name: &str| {
            let peer = IpAddr::from(peer);
            ip(
                on,
                &format!("neighbour replace {peer} lladdr {NOBODY} nud permanent dev {name}"),
            );
        };
        cut(None, FAR_ADDRESS, "near");
        cut(Some(self), NEAR_ADDRESS, "far");
    }

    /// Limits the link to 32 KiB a second; more is dropped. False if this kernel cannot do that.
    pub(crate) fn slow_down(&self) -> bool {
        let mut shape = Command::new("tc");
        shape.args("qdisc add dev near root tbf rate 256kbit burst 8kb latency 200ms".split(' '));
        shape.status().is_ok_and(|status| status.success())
    }

    /// A command that runs on the far machine.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.far.id().to_string(), "--net", program]);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.far.kill();
        let _ = self.far.wait();
    }
}

fn ip(on: Option<&Network>, arguments: &str) {
    let mut command = on.map_or_else(|| Command::new("ip"), |network| network.there("ip"));
    let status = command
        .args(arguments.split(' '))
        .status()
        .expect("ip exists");
    assert!(status.success(), "ip {arguments}");
}

/// Runs a command in a new network namespace, with all rights in it.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]);
    command
}

fn permitted() -> bool {
    let mut attempt = unshare();
    attempt.args([
        "ip", "link", "add", "near", "type", "veth", "peer", "name", "far",
    ]);
    let output = attempt.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
        && Command::new("nsenter").arg("--version").output().is_ok()
}
