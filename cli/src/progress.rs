//! What a person sees on standard error while a command works: a bar, a status line, notes between.
//!
//! Bars and status lines are drawn on a terminal only; notes always. Text for standard output that a person reads on
//! the same terminal goes through [`aside`], so that the two do not mix.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints a line to standard error, above any bar.
pub(crate) fn note(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _gone = BARS.suspend(|| writeln!(io::stderr().lock(), "{text}"));
}

/// Runs `print` with the bars taken off the terminal.
pub(crate) fn aside<T>(print: impl FnOnce() -> T) -> T {
    BARS.suspend(print)
}

/// Whether a person watches standard error.
pub(crate) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// A bar over a known number of things: `reading the lake ━━━━╸   12/40 objects, 1.2 M rows`.
pub(crate) fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} {eta}")
        .expect("the template is a constant");
    BARS.add(ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(what))
}

/// One line that is rewritten in place.
pub(crate) fn status() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_msg}").expect("the template is a constant");
    BARS.add(ProgressBar::new_spinner().with_style(style))
}

/// A status line that renews itself while something else works; nothing at all where nobody watches.
pub(crate) struct Ticker {
    line: ProgressBar,
    _tasks: JoinSet<()>,
}

impl Ticker {
    /// Starts to show what `text` says, twice a second.
    pub(crate) fn start(text: impl Fn() -> String + Send + 'static) -> Self {
        let mut tasks = JoinSet::new();
        let line = if watched() { status() } else { ProgressBar::hidden() };
        if watched() {
            let line = line.clone();
            tasks.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    line.set_message(text());
                }
            });
        }
        Self { line, _tasks: tasks }
    }

    /// Takes the line off the terminal.
    pub(crate) fn stop(self) {
        self.line.finish_and_clear();
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`, `1,234 rows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let mut text = grouped(number);
    let plural = if number == 1 { "" } else { "s" };
    write!(text, " {noun}{plural}").expect("a String takes all that is written to it");
    text
}

/// Standard error for the log: each line is written above the bars.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().lock().write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_follow_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 2_000].map(|n| counted(n, "row")), ["0 rows", "1 row", "2,000 rows"]);
    }
}
