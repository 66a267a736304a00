//! How the demo looks: headings, rows and bars that fit 80 columns.
//!
//! Owns the show's output: text on stdout, with a panel that is redrawn while records flow where stdout is a
//! terminal, and plain lines where it is not. With `--json` it is silent; the data speaks.
//!
//! Start at [`Screen`].

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{human, output::Output};

/// Columns that every line keeps to.
pub(super) const COLUMNS: usize = 80;

/// Columns of the names on the left.
pub(super) const LABEL: usize = 17;

const BAR: usize = 28;

/// The show's text.
pub(super) struct Screen<'a> {
    out: &'a mut Output,
    style: Style,
    live: Option<Live>,
}

/// One line of the panel.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) count: u64,
    /// What the bar's full length stands for.
    pub(super) of: u64,
    /// A word behind the bar.
    pub(super) note: String,
}

struct Live {
    panel: MultiProgress,
    rows: Vec<ProgressBar>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut Output) -> Screen<'a> {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { out, style: Style { colour }, live: None }
    }

    /// Where JSON lines go.
    pub(super) fn out(&mut self) -> &mut Output {
        self.out
    }

    pub(super) fn is_json(&self) -> bool {
        self.out.is_json()
    }

    /// Whether rows are redrawn in place.
    pub(super) fn shows_live(&self) -> bool {
        !self.is_json() && io::stdout().is_terminal()
    }

    /// A heading, with air above it.
    pub(super) fn heading(&mut self, text: &str) -> anyhow::Result<()> {
        let text = format!("\n{}", self.style.bold(text));
        self.line(&text)
    }

    /// A name and what is to be said of it.
    pub(super) fn row(&mut self, label: &str, text: &str) -> anyhow::Result<()> {
        let text = human::one_line(text, COLUMNS - 2 - LABEL);
        let label = self.style.dim(&format!("{label:<LABEL$}"));
        self.line(&format!("  {label}{text}"))
    }

    /// A name and a longer text, on as many lines as it needs.
    pub(super) fn paragraph(&mut self, label: &str, text: &str) -> anyhow::Result<()> {
        let lines = wrap(text, COLUMNS - 2 - LABEL);
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        lines.iter().zip(labels).try_for_each(|(line, label)| self.row(label, line))
    }

    /// A line of running text, or one that is not to be cut.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        if self.is_json() {
            return Ok(());
        }
        self.out.raw(text.as_bytes())?;
        self.out.raw(b"\n")?;
        self.out.flush()
    }

    /// Good news or bad news at the end of a line.
    pub(super) fn verdict(&self, good: bool, text: &str) -> String {
        if good { self.style.green(text) } else { self.style.red(text) }
    }

    /// Shows the rows as they are now: redrawn on a terminal, silent elsewhere.
    pub(super) fn live(&mut self, rows: &[Row]) {
        let live = self.live.get_or_insert_with(|| Live::new(rows.len()));
        for (bar, row) in live.rows.iter().zip(rows) {
            bar.set_message(self.style.text(row));
        }
    }

    /// Ends the redrawing and leaves the rows as they are at the end.
    pub(super) fn settle(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        if let Some(live) = self.live.take() {
            live.rows.iter().for_each(ProgressBar::finish_and_clear);
            // The panel is drawn by its own handle of the terminal: nothing may be left to be cleared later.
            let _ = live.panel.clear();
            let _ = io::stdout().flush();
        }
        rows.iter().try_for_each(|row| {
            let text = self.style.text(row);
            self.line(text.trim_end())
        })
    }
}

impl Live {
    fn new(rows: usize) -> Live {
        let panel = MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(15));
        let style = ProgressStyle::with_template("{msg}").expect("the template is a constant");
        let row = || panel.add(ProgressBar::no_length().with_style(style.clone()));
        let rows = (0..rows).map(|_| row()).collect();
        Live { panel, rows }
    }
}

/// Bold, dim and three colours, or none of them.
#[derive(Debug, Clone, Copy)]
struct Style {
    colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn text(self, row: &Row) -> String {
        let label = self.dim(&format!("{:<LABEL$}", row.label));
        let bar = self.paint("36", &bar(row.count, row.of));
        format!("  {label}{:>11}  {bar}  {:>7}  {}", human::count(row.count), percent(row.count, row.of), row.note)
    }
}

/// Breaks a text at its spaces; a word that is too long for a line is left to be cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A bar of eighths of a character; what is not nothing shows.
fn bar(count: u64, of: u64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let full = BAR as u64 * 8;
    let filled = if of == 0 { 0 } else { (u128::from(count.min(of)) * u128::from(full) / u128::from(of)) as u64 };
    let filled = if count > 0 { filled.max(1) } else { 0 };
    let mut text: String = std::iter::repeat_n('█', (filled / 8) as usize).collect();
    if !filled.is_multiple_of(8) {
        text.push(EIGHTHS[(filled % 8) as usize]);
    }
    let blank = BAR - text.chars().count();
    text.extend(std::iter::repeat_n(' ', blank));
    text
}

fn percent(count: u64, of: u64) -> String {
    if of == 0 {
        return "-".to_owned();
    }
    let percent = count as f64 * 100.0 / of as f64;
    let digits = if count == of || count == 0 { 0 } else { 1 + usize::from(percent < 0.1) };
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_fits_the_screen() {
        let style = Style { colour: false };
        for (count, of) in [(0, 0), (0, 10), (1, 1_000_000_000), (9_779, 10_000), (999_999_999, 999_999_999)] {
            let row = Row { label: "dead-lettered".to_owned(), count, of, note: "999,999/s".to_owned() };
            let text = style.text(&row);
            assert!(text.chars().count() <= COLUMNS, "{} columns: {text}", text.chars().count());
        }
    }

    #[test]
    fn long_texts_break_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
    }

    #[test]
    fn a_bar_shows_what_is_not_nothing_and_is_full_at_the_end() {
        assert_eq!(bar(0, 10).trim(), "");
        assert_eq!(bar(1, 1_000_000).trim(), "▏");
        assert_eq!(bar(10, 10), "█".repeat(BAR));
        assert_eq!(bar(7, 0).chars().count(), BAR);
        assert_eq!(
            (percent(1, 10_000), percent(9_779, 10_000), percent(3, 3)),
            ("0.01 %".into(), "97.8 %".into(), "100 %".into())
        );
    }
}
