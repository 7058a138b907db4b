//! The congestion control of every connection. BBR, the default of many systems, distorts loopback.

use crate::namespace;

/// Sees to it that all connections have this one, and says what they have.
pub(crate) fn set(wanted: &str) {
    let file = "/proc/sys/net/ipv4/tcp_congestion_control";
    let default = std::fs::read_to_string(file).unwrap_or_default();
    let default = default.trim();
    match default == wanted || namespace::enter(wanted) {
        true => println!("congestion control: {wanted}\n"),
        false => println!("congestion control: {default}, because {wanted} cannot be set\n"),
    }
}
