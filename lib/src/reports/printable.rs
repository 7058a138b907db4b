//! Text from a peer, made safe for a terminal and a log.

use std::fmt;

use crate::defaults::BRIEF_CHARS;

/// Makes text from a peer safe for a terminal and a log.
///
/// Escape codes can rewrite what a terminal shows, newlines can forge lines of a log, and
/// right-to-left marks can reorder a sentence. Every character that is not printable is shown as
/// its escape, such as `\u{1b}` or `\n`. The `Display` texts of the crate's errors do this already.
/// Use it to print other text from a peer, such as [`Close::reason`](crate::Close::reason).
///
/// ```
/// assert_eq!(unstall::printable("gone\x1b[2J").to_string(), r"gone\u{1b}[2J");
/// ```
pub fn printable(text: &str) -> Printable<'_> {
    Printable(text)
}

/// Displays a text with its control characters escaped. Made by [`printable`].
#[derive(Clone, Copy)]
pub struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PLAIN: [char; 3] = ['"', '\'', '\\'];
        // `escape_debug` knows what is printable. It also escapes these three, which is only needed
        // inside quotes.
        for piece in self.0.split_inclusive(PLAIN) {
            let body = piece.trim_end_matches(PLAIN);
            write!(f, "{}", body.escape_debug())?;
            f.write_str(&piece[body.len()..])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first line of a peer's text, for an error: printable, and at most [`BRIEF_CHARS`] long.
#[derive(Clone, Copy)]
pub(crate) struct Brief<'a>(pub(crate) &'a str);

impl Brief<'_> {
    /// The first line that is not blank.
    fn line(&self) -> &str {
        let mut lines = self.0.lines().map(str::trim);
        lines.find(|line| !line.is_empty()).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line().is_empty()
    }
}

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line();
        match line.char_indices().nth(BRIEF_CHARS) {
            None => printable(line).fmt(f),
            Some((end, _)) => write!(f, "{}…", printable(&line[..end])),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of any text, also with escape codes and marks that turn the direction of writing.
        #[test]
        fn nothing_that_acts_on_a_terminal_is_printed(
            text in "(\\PC|\\p{C}|\\p{Z}|\\x1b\\[[0-9]m|[\u{202a}-\u{202e}\u{2066}-\u{2069}\u{feff}]){0,40}",
        ) {
            for shown in [printable(&text).to_string(), Brief(&text).to_string()] {
                let acts = |c: char| {
                    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                        | '\u{2066}'..='\u{2069}' | '\u{feff}')
                };
                prop_assert!(!shown.chars().any(acts), "{shown:?}");
            }
        }
    }

    #[test]
    fn what_could_act_on_a_terminal_or_forge_a_line_is_escaped() {
        for (said, shown) in [
            (
                "plain words, \"quoted\" and 'so'",
                "plain words, \"quoted\" and 'so'",
            ),
            (r"C:\path", r"C:\path"),
            ("\x1b]0;title\x07\x1b[2J", r"\u{1b}]0;title\u{7}\u{1b}[2J"),
            ("a\nWARN forged\r\tb", r"a\nWARN forged\r\tb"),
            ("\u{202e}txt.exe\u{2066}", r"\u{202e}txt.exe\u{2066}"),
            ("\u{9b}31m\u{2028}\u{feff}", r"\u{9b}31m\u{2028}\u{feff}"),
            ("Grüße, 世界, привет", "Grüße, 世界, привет"),
        ] {
            assert_eq!(printable(said).to_string(), shown);
        }
    }

    #[test]
    fn brief_is_one_line_of_bounded_length() {
        assert_eq!(Brief("\n  bad token \nmore").to_string(), "bad token");
        assert!(Brief(" \r\n").is_empty());
        let long = Brief(&"é".repeat(10_000)).to_string();
        assert_eq!(long.chars().count(), BRIEF_CHARS + 1);
        assert!(long.ends_with("é…"));
    }
}
