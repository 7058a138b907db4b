//! The lines that are not stored, or may not be.

use std::fmt::Write;

use unstall_topics::PublishError;

/// How many runs of lines are named.
const NAMED: usize = 20;

/// Lines without a confirmation, and why the first of them has none.
#[derive(Debug, Default)]
pub(super) struct Unstored {
    not: Runs,
    unknown: Runs,
    why: Option<String>,
}

/// Runs of consecutive lines.
#[derive(Debug, Default)]
struct Runs {
    count: u64,
    first: Vec<(u64, u64)>,
    more: bool,
}

impl Unstored {
    /// A line that may be stored, or is not.
    pub(super) fn add(&mut self, line: u64, may_be: bool, why: &PublishError) {
        match may_be {
            true => self.unknown.add(line),
            false => self.not.add(line),
        }
        self.why.get_or_insert_with(|| why.to_string());
    }

    /// What is to be told, if there is something.
    pub(super) fn text(&self, lines: u64) -> Option<String> {
        let why = self.why.as_ref()?;
        let mut parts = Vec::new();
        if self.not.count > 0 {
            parts.push(format!(
                "{} were not stored: {}",
                self.not.count,
                self.not.names()
            ));
        }
        if self.unknown.count > 0 {
            let (count, names) = (self.unknown.count, self.unknown.names());
            parts.push(format!(
                "of {count} it is unknown whether they were stored: {names}"
            ));
        }
        Some(format!("of {lines} lines, {} ({why})", parts.join("; ")))
    }
}

impl Runs {
    fn add(&mut self, line: u64) {
        self.count = self.count.saturating_add(1);
        if let Some((_, end)) = self.first.last_mut().filter(|_| !self.more)
            && end.saturating_add(1) == line
        {
            *end = line;
        } else if self.first.len() < NAMED {
            self.first.push((line, line));
        } else {
            self.more = true;
        }
    }

    fn names(&self) -> String {
        let mut text = "line".to_owned();
        for (at, (begin, end)) in self.first.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = match begin == end {
                true => write!(text, "{comma} {begin}"),
                false => write!(text, "{comma} {begin} to {end}"),
            };
        }
        if self.more {
            text += " and more";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_in_runs_and_the_unknown_ones_apart() {
        let mut unstored = Unstored::default();
        assert_eq!(unstored.text(9), None);
        for line in [2, 3, 4, 7] {
            unstored.add(line, false, &PublishError::NotSent);
        }
        unstored.add(8, true, &PublishError::Unknown);
        let text = unstored.text(9).unwrap();
        assert!(
            text.starts_with(
                "of 9 lines, 4 were not stored: line 2 to 4, 7; \
             of 1 it is unknown whether they were stored: line 8 ("
            ),
            "{text}"
        );
        for line in 0..100 {
            unstored.add(10 + 2 * line, false, &PublishError::NotSent);
        }
        // Twenty runs are named: the two above, and lines 10, 12 and so on up to 44.
        let text = unstored.text(300).unwrap();
        assert!(text.contains(", 44 and more;"), "{text}");
    }
}
