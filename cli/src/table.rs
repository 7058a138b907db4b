//! Tables for a terminal, or as text where there is none.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    style::{Modifier, Style},
    text::Text,
    widgets::{Cell, Row, Table, Widget},
};

/// A column: its heading, how wide it is, and whether numbers stand in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) width: u16,
    pub(crate) numbers: bool,
}

impl Column {
    pub(crate) const fn new(heading: &'static str, width: u16) -> Column {
        Column {
            heading,
            width,
            numbers: false,
        }
    }

    /// Its cells stand at the right.
    pub(crate) const fn numbers(heading: &'static str, width: u16) -> Column {
        Column {
            heading,
            width,
            numbers: true,
        }
    }

    fn cell(self, text: &str) -> Cell<'static> {
        let width = usize::from(self.width);
        let text = shortened(text, width);
        let text = match self.numbers {
            true => format!("{text:>width$}"),
            false => text,
        };
        Cell::from(Text::raw(text))
    }
}

/// A line of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) cells: Vec<String>,
    pub(crate) style: Style,
}

/// What separates two columns, in characters.
const GAP: u16 = 1;

/// The table as a widget.
pub(crate) fn table(columns: &[Column], lines: &[Line]) -> Table<'static> {
    let heading = Style::new().add_modifier(Modifier::DIM);
    let headings = columns.iter().map(|it| it.cell(it.heading));
    let rows = lines.iter().map(|line| {
        let cells = columns.iter().zip(&line.cells);
        Row::new(cells.map(|(column, text)| column.cell(text))).style(line.style)
    });
    let widths = columns
        .iter()
        .map(|column| Constraint::Length(column.width));
    Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(Row::new(headings.collect::<Vec<_>>()).style(heading))
        .column_spacing(GAP)
}

/// Columns as wide as what stands in them.
pub(crate) fn natural(headings: &[&'static str], lines: &[Line]) -> Vec<Column> {
    let widest = |nth: usize| {
        let cells = lines.iter().filter_map(|line| line.cells.get(nth));
        let widest = cells.map(|cell| cell.chars().count()).max();
        u16::try_from(widest.unwrap_or(0)).unwrap_or(u16::MAX)
    };
    let columns = headings.iter().enumerate().map(|(nth, heading)| {
        let own = u16::try_from(heading.len()).unwrap_or(u16::MAX);
        Column::new(heading, widest(nth).max(own))
    });
    columns.collect()
}

/// As many of these columns as there is room for, of which the last may be narrower.
pub(crate) fn fitting(columns: Vec<Column>, width: u16) -> Vec<Column> {
    let mut room = width;
    let mut fitting = Vec::new();
    for mut column in columns {
        if room == 0 {
            break;
        }
        column.width = column.width.min(room);
        room = room.saturating_sub(column.width.saturating_add(GAP));
        fitting.push(column);
    }
    fitting
}

/// The width of a table.
pub(crate) fn width(columns: &[Column]) -> u16 {
    columns.iter().fold(0, |sum: u16, column| {
        sum.saturating_add(column.width).saturating_add(GAP)
    })
}

/// What a widget shows, as lines without colours.
pub(crate) fn text(width: u16, height: u16, widget: impl Widget) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    widget.render(area, &mut buffer);
    lines(&buffer)
}

/// The lines of a buffer, without the blanks at their ends.
pub(crate) fn lines(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content().chunks(width).map(|row| {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    rows.collect()
}

/// A text that is cut to so many characters, with an ellipsis for the rest.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => {
            let head: String = text.chars().take(width.saturating_sub(1)).collect();
            head + "…"
        }
        false => text.to_owned(),
    }
}

/// A duration in a narrow column.
pub(crate) fn time(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..600 => format!("{seconds}s"),
        seconds @ 600..36_000 => format!("{}m", seconds / 60),
        seconds @ 36_000..864_000 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in a narrow column.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match value < 9.95 && unit != UNITS[0] {
        true => format!("{value:.1} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

/// A count in a narrow column.
pub(crate) fn count(count: f64) -> String {
    match count {
        0.0 => "0".to_owned(),
        count if count < 9.95 => format!("{count:.1}"),
        count if count < 9_999.5 => format!("{count:.0}"),
        count if count < 9_999_500.0 => format!("{:.0}k", count / 1e3),
        count => format!("{:.0}M", count / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_in_narrow_columns() {
        for (figure, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "2 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 20, "5.0 MiB"),
            (999 << 30, "999 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(figure), shown);
        }
        for (figure, shown) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.96, "10"),
            (9_999.0, "9999"),
            (123_456.0, "123k"),
            (45_600_000.0, "46M"),
        ] {
            assert_eq!(count(figure), shown);
        }
        for (seconds, shown) in [(1, "1s"), (599, "599s"), (3_600, "60m"), (900_000, "10d")] {
            assert_eq!(time(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn a_table_cuts_what_is_too_long_and_puts_numbers_at_the_right() {
        let columns = [Column::new("NAME", 6), Column::numbers("N", 4)];
        let lines = [
            Line {
                cells: vec!["a long one".into(), "7".into()],
                ..Line::default()
            },
            Line {
                cells: vec!["b".into(), "1234".into()],
                ..Line::default()
            },
        ];
        let shown = text(width(&columns), 3, table(&columns, &lines));
        assert_eq!(shown, "NAME      N\na lon…    7\nb      1234\n");
        let columns = natural(&["NAME", "N"], &lines);
        let shown = text(width(&columns), 2, table(&columns, &lines));
        assert_eq!(shown, "NAME       N\na long one 7\n");
        // What is not wide enough shows the first columns.
        for (width, shows) in [
            (12, "NAME       N\na long one 7\n"),
            (11, "NAME\na long one\n"),
            (6, "NAME\na lon…\n"),
            (0, "\n\n"),
        ] {
            let columns = fitting(columns.clone(), width);
            let shown = text(width.max(1), 2, table(&columns, &lines));
            assert_eq!(shown, shows, "{width}");
        }
    }
}
