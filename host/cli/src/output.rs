//! What goes where: data on stdout, talk on stderr.
//!
//! Owns stdout for the whole process. With `--json`, data is one JSON object per line; without, it is text for
//! people. A reader that goes away (`weir consume t | head`) is a quiet end, told by [`Closed`].
//!
//! Start at [`Output`].

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use serde::Serialize;

/// The reader of stdout is gone: nothing is left to do, and nothing went wrong.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of stdout is gone")
    }
}

impl std::error::Error for Closed {}

/// Stdout and stderr, used as the flags say.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    /// Text, or JSON lines.
    pub(crate) fn new(json: bool) -> Output {
        Output { json, stdout: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Whether data goes out as JSON lines.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether people watch stderr: where progress is worth drawing.
    pub(crate) fn talks_to_a_person(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// One result: as a JSON line, or as what `text` makes of it.
    pub(crate) fn item<T: Serialize>(&mut self, item: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json {
            self.json_line(item)
        } else {
            let text = text(item);
            self.raw(text.as_bytes())?;
            self.raw(b"\n")
        }
    }

    /// Many results of one kind: a JSON line each, or a table.
    pub(crate) fn table<T: Serialize>(
        &mut self,
        items: &[T],
        columns: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        if self.json {
            return items.iter().try_for_each(|item| self.json_line(item));
        }
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        self.raw(table(columns, &rows).as_bytes())
    }

    /// One JSON line, whatever the flags say.
    pub(crate) fn json_line<T: Serialize>(&mut self, item: &T) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(item)?;
        line.push(b'\n');
        self.raw(&line)
    }

    /// Bytes, as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stdout.write_all(bytes).map_err(closed)
    }

    /// Hands out what is held back.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.stdout.flush().map_err(closed)
    }

    /// A word to the person at the terminal; scripts that read stdout do not see it.
    pub(crate) fn say(&self, text: impl fmt::Display) {
        // Nobody may be listening on stderr either; the command goes on.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn closed(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Closed.into()
    } else {
        anyhow::Error::new(error).context("failed to write to stdout")
    }
}

/// Ready when nobody reads stdout any more: a pipe into `head` that has seen enough, say. A write would tell as well,
/// but there may be nothing left to write.
#[cfg(unix)]
pub(crate) async fn reader_gone() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
    let stdout = io::stdout();
    loop {
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut watched, Some(&at_once)).is_ok_and(|ready| ready > 0) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Nothing tells: the next write will.
#[cfg(not(unix))]
pub(crate) async fn reader_gone() {
    std::future::pending().await
}

/// Columns as wide as their widest cell; numbers to the right.
pub(crate) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([columns[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let numeric = |column: usize| {
        let number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit());
        !rows.is_empty() && rows.iter().filter_map(|row| row.get(column)).all(number)
    };
    let right: Vec<bool> = (0..columns.len()).map(numeric).collect();
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            let gap = if column == 0 { "" } else { "  " };
            text += &if right[column] { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:<width$}") };
        }
        format!("{}\n", text.trim_end())
    };
    let head: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    std::iter::once(line(&head)).chain(rows.iter().map(|row| line(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = [vec!["web".to_owned(), "1,200".to_owned()], vec!["web.dlq".to_owned(), "7".to_owned()]];
        assert_eq!(table(&["topic", "records"], &rows), "TOPIC    RECORDS\nweb        1,200\nweb.dlq        7\n");
    }
}
