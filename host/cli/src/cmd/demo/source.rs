//! Where the demo's records come from: a seed, or a file of lines.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::events::Events;
use crate::{
    exit::{Exit, Failure},
    lines::Lines,
};

/// How to make a [`Source`], as often as needed: always the same lines.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// So many events of this seed.
    Seed { seed: u64, records: u64 },
    /// The lines of this file.
    File(PathBuf),
}

/// Lines, one after the other.
pub(super) enum Source {
    Seed { events: Events, left: u64, line: String },
    File(Lines<BufReader<File>>),
}

impl Origin {
    /// Begins at the first line.
    pub(super) fn open(&self) -> anyhow::Result<Source> {
        Ok(match self {
            Origin::Seed { seed, records } => {
                Source::Seed { events: Events::new(*seed), left: *records, line: String::new() }
            }
            Origin::File(path) => Source::File(Lines::new(BufReader::with_capacity(256 << 10, open(path)?))),
        })
    }

    /// How many lines there are.
    pub(super) fn count(&self) -> anyhow::Result<u64> {
        match self {
            Origin::Seed { records, .. } => Ok(*records),
            Origin::File(_) => {
                let (mut source, mut line, mut count) = (self.open()?, Vec::new(), 0);
                while source.next(&mut line)? {
                    count += 1;
                }
                Ok(count)
            }
        }
    }

    /// The first lines, at most `count`.
    pub(super) fn first(&self, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let (mut source, mut lines, mut line) = (self.open()?, Vec::new(), Vec::new());
        while lines.len() < count && source.next(&mut line)? {
            lines.push(line.clone());
        }
        Ok(lines)
    }
}

impl Source {
    /// Puts the next line into `line`, which is emptied first; false at the end.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> anyhow::Result<bool> {
        match self {
            Source::Seed { left: 0, .. } => Ok(false),
            Source::Seed { events, left, line: text } => {
                *left -= 1;
                events.write_next(text);
                line.clear();
                line.extend_from_slice(text.as_bytes());
                Ok(true)
            }
            Source::File(lines) => Ok(lines.read(line)?),
        }
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).map_err(|error| {
        let text = format!("cannot read `{}`", path.display());
        Failure::new(Exit::Refused, text, "give an access log in the combined format").because(error).into()
    })
}
