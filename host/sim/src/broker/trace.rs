//! What happened, a line each, and their hash: two runs of a seed have the same.
//!
//! Start at [`Trace::add`].

use std::time::Duration;

/// Lines, or only their hash.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    count: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// With or without the lines.
    pub(super) fn new(keeps_lines: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, count: 0, lines: keeps_lines.then(Vec::new) }
    }

    /// Adds a line: when, who, what.
    pub(super) fn add(&mut self, at: Duration, who: &str, what: &str) {
        let line = format!("{:>10.6} {who:<12} {what}", at.as_secs_f64());
        // FNV-1a: for telling runs apart, nothing more.
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.count += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// The hash of all lines.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The lines, if they were kept.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
