//! Progress bars on stderr. There are none if it is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `len` packets.
pub(crate) fn packets_bar(title: &str, len: u64) -> ProgressBar {
    let style = "{msg:24} {bar:30} {human_pos:>9}/{human_len} {per_sec:>12}  {elapsed}";
    let bar = ProgressBar::new(len).with_message(title.to_owned());
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
