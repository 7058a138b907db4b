//! Progress bars on stderr. There are none if it is not a terminal.

use std::fmt;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// A bar over `len` packets.
pub(crate) fn packets_bar(title: &str, len: u64) -> ProgressBar {
    let style = "{msg:24} {bar:30} {human_pos:>9}/{human_len} {rate:>10}  {elapsed}";
    let bar = ProgressBar::new(len).with_message(title.to_owned());
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = out.write_str(&rate(state.per_sec()));
    };
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style.with_key("rate", rate)),
        Err(_) => bar,
    }
}

/// Packets a second, as a whole number.
fn rate(per_second: f64) -> String {
    format!("{}/s", HumanCount(per_second.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once a bar showed "2,701.783345802458/s".
    #[test]
    fn rate_is_a_whole_number() {
        assert_eq!(rate(2_701.783_345_802_458), "2,702/s");
        assert_eq!(rate(0.0), "0/s");
        assert_eq!(rate(f64::NAN), "0/s");
    }
}
