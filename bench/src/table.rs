//! The figures of a case's runs, as text.

use crate::{
    job::Outcome,
    round::{Case, Entry, Missing},
};

/// One figure of a run.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) of: fn(&Outcome) -> f64,
    pub(crate) digits: usize,
    /// Whether its ratio to the reference is shown too.
    pub(crate) ratio: bool,
    /// Whether the difference to the reference is shown too.
    pub(crate) excess: bool,
    /// Whether unstall is compared with each other contestant in it.
    pub(crate) pairs: bool,
}

impl Column {
    pub(crate) const fn new(title: &'static str, digits: usize, of: fn(&Outcome) -> f64) -> Column {
        Column {
            title,
            of,
            digits,
            ratio: false,
            excess: false,
            pairs: false,
        }
    }

    pub(crate) const fn with_ratio(self) -> Column {
        Column {
            ratio: true,
            ..self
        }
    }

    pub(crate) const fn with_excess(self) -> Column {
        Column {
            excess: true,
            ..self
        }
    }

    pub(crate) const fn with_pairs(self) -> Column {
        Column {
            pairs: true,
            ..self
        }
    }
}

/// Medians over the rounds; ratios to the reference of the same round as median and spread.
pub(crate) fn render(case: &Case, columns: &[Column]) -> String {
    let mut head = vec!["".to_owned()];
    for column in columns {
        head.push(column.title.to_owned());
        if column.ratio {
            head.push(format!("× {} (min–max)", case.reference));
        }
        if column.excess {
            head.push(format!("beyond {} (min–max)", case.reference));
        }
    }
    let mut rows = vec![head];
    let mut notes = Vec::new();
    for entry in &case.entries {
        match &entry.missing {
            None => rows.push(row(entry, case.reference_runs(), columns)),
            Some(Missing::Cannot(why)) => {
                notes.push(format!("{} does not: {why}", entry.contestant))
            }
            Some(Missing::Failed(why)) => notes.push(format!("{} FAILED: {why}", entry.contestant)),
        }
    }
    let mut text = align(&rows);
    for column in columns.iter().filter(|column| column.pairs) {
        text += &pairs(case, column);
    }
    notes.iter().for_each(|note| text += &format!("  {note}\n"));
    text
}

fn row(entry: &Entry, reference: &[Outcome], columns: &[Column]) -> Vec<String> {
    let mut row = vec![entry.contestant.to_owned()];
    for column in columns {
        let mut values: Vec<_> = entry.runs.iter().map(column.of).collect();
        row.push(format!("{:.*}", column.digits, median(&mut values)));
        if column.ratio {
            row.push(spread(ratios(&entry.runs, reference, column), 2));
        }
        if column.excess {
            let excess = beside(&entry.runs, reference, column, |run, reference| {
                run - reference
            });
            row.push(spread(excess, column.digits));
        }
    }
    row
}

/// Median, smallest and largest.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    let median = median(&mut values);
    match values[..] {
        [] => "?".to_owned(),
        [_] => format!("{median:.digits$}"),
        [min, .., max] => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
    }
}

/// Round by round.
fn ratios(runs: &[Outcome], reference: &[Outcome], column: &Column) -> Vec<f64> {
    beside(runs, reference, column, |run, reference| run / reference)
}

/// Each run's figure and that of the reference in its round.
fn beside(
    runs: &[Outcome],
    reference: &[Outcome],
    column: &Column,
    compare: fn(f64, f64) -> f64,
) -> Vec<f64> {
    let both = runs.iter().zip(reference);
    both.map(|(run, reference)| compare((column.of)(run), (column.of)(reference)))
        .collect()
}

/// Medians of the ratios of each of unstall's ways to each other contestant.
fn pairs(case: &Case, column: &Column) -> String {
    let (ours, others): (Vec<_>, Vec<_>) = case
        .entries
        .iter()
        .filter(|entry| !entry.runs.is_empty())
        .partition(|entry| entry.contestant.starts_with("unstall"));
    if ours.is_empty() || others.is_empty() {
        return String::new();
    }
    let mut rows = vec![vec![format!("{}, ×", column.title)]];
    rows[0].extend(others.iter().map(|other| other.contestant.to_owned()));
    for our in ours {
        let ratio = |other: &&Entry| {
            let ratio = median(&mut ratios(&our.runs, &other.runs, column));
            format!("{ratio:.2}")
        };
        let mut row = vec![our.contestant.to_owned()];
        row.extend(others.iter().map(ratio));
        rows.push(row);
    }
    format!("\n{}", align(&rows))
}

/// Sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values {
        [] => f64::NAN,
        _ if values.len().is_multiple_of(2) => {
            (values[values.len() / 2 - 1] + values[values.len() / 2]) / 2.0
        }
        _ => values[values.len() / 2],
    }
}

/// Aligns the first column to the left and the others to the right.
fn align(rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<_> = (0..rows[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: String = cells
            .map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            })
            .collect();
        text += &format!("  {}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
