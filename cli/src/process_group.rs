//! Processes that the terminal's Ctrl-C does not reach.

use tokio::process::Command;

/// Makes the process the leader of a group of its own. Only this program handles Ctrl-C then.
pub(crate) fn lead(command: &mut Command) {
    #[cfg(unix)]
    command.process_group(0);
    #[cfg(windows)]
    command.creation_flags(0x0000_0200); // CREATE_NEW_PROCESS_GROUP
}
