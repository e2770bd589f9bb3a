//! A table for people's eyes: columns in line, numbers to the right, no wider than the terminal.
//!
//! In: cells as text. Out: lines. Strangers' text is made harmless here: no control character gets through.

use console::{measure_text_width, truncate_str};

/// Columns are not squeezed below this many cells of the terminal.
const WIDTH_MIN: usize = 8;
const GAP: usize = 2;

/// A table to be laid out.
#[derive(Debug)]
pub(crate) struct Table {
    /// Names of the columns.
    pub(crate) header: Vec<String>,
    /// Which columns are numbers.
    pub(crate) numeric: Vec<bool>,
    /// Rows of cells, as many as there are columns.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// The lines of the table: header, rule, rows.
    pub(crate) fn lines(&self, terminal_width: Option<usize>) -> Vec<String> {
        let header: Vec<String> = self.header.iter().map(|name| harmless(name)).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()).collect();
        let widest = |column: usize| {
            let cells = rows.iter().map(|row| measure_text_width(&row[column]));
            cells.chain([measure_text_width(&header[column])]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..header.len()).map(widest).collect();
        if let Some(terminal) = terminal_width {
            squeeze(&mut widths, terminal);
        }
        let mut lines = vec![
            self.line(&header, &widths),
            widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  "),
        ];
        lines.extend(rows.iter().map(|row| self.line(row, &widths)));
        lines
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let cell = truncate_str(cell, *width, "…");
            let blanks = " ".repeat(width.saturating_sub(measure_text_width(&cell)));
            if column > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            if self.numeric[column] {
                line.push_str(&blanks);
                line.push_str(&cell);
            } else {
                line.push_str(&cell);
                line.push_str(&blanks);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The same as a Markdown table.
    pub(crate) fn markdown(&self, with_header: bool) -> Vec<String> {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| harmless(cell).replace('|', "\\|")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let mut lines = Vec::with_capacity(self.rows.len() + 2);
        if with_header {
            let rule: Vec<String> =
                self.numeric.iter().map(|numeric| if *numeric { "---:" } else { "---" }.to_owned()).collect();
            lines.extend([line(&self.header), line(&rule)]);
        }
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines
    }
}

/// Takes from the widest column until the line fits or all are narrow.
fn squeeze(widths: &mut [usize], terminal: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > terminal {
        match widths.iter_mut().max() {
            Some(widest) if *widest > WIDTH_MIN => *widest -= 1,
            _ => return,
        }
    }
}

/// Line feeds, escapes and their like as Rust would write them.
fn harmless(cell: &str) -> String {
    if !cell.chars().any(char::is_control) {
        return cell.to_owned();
    }
    cell.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 2]]) -> Table {
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        Table { header: vec!["tag".into(), "events".into()], numeric: vec![false, true], rows }
    }

    #[test]
    fn text_stands_left_and_numbers_right() {
        let lines = table(&[["bitcoin", "1234567"], ["日本", "7"]]).lines(None);
        assert_eq!(lines, ["tag       events", "───────  ───────", "bitcoin  1234567", "日本           7"]);
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let lines = table(&[["a very long tag that nobody reads to its end", "1"]]).lines(Some(24));
        assert_eq!(lines[2], "a very long tag…       1");
        assert!(lines.iter().all(|line| measure_text_width(line) <= 24));
    }

    #[test]
    fn strangers_do_not_steer_the_terminal() {
        let lines = table(&[["a\u{1b}[2J\nb", "1"]]).lines(None);
        assert_eq!(lines[2], "a\\u{1b}[2J\\nb       1");
    }

    #[test]
    fn markdown_escapes_its_bars() {
        assert_eq!(table(&[["a|b", "1"]]).markdown(true), ["| tag | events |", "| --- | ---: |", "| a\\|b | 1 |"]);
    }
}
