//! Reads lines from outside under a bound, without their line ends (LF or CRLF).

use std::{
    fmt,
    io::{self, BufRead},
};

use protocol::limits::RECORD_BYTES_CEILING;

/// Input that cannot be taken as lines.
#[derive(Debug)]
pub(crate) enum LineError {
    /// A line is longer than any record may be.
    TooLong {
        /// Its number, from 1.
        line: u64,
    },
    /// Reading failed.
    Io(io::Error),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::TooLong { line } => write!(
                f,
                "line {line} is longer than a record can be (`record_bytes_ceiling`, {RECORD_BYTES_CEILING} B)"
            ),
            LineError::Io(_) => f.write_str("failed to read the input"),
        }
    }
}

impl std::error::Error for LineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LineError::TooLong { .. } => None,
            LineError::Io(error) => Some(error),
        }
    }
}

/// Lines of a reader, one by one.
pub(crate) struct Lines<R> {
    reader: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    /// Begins at line 1.
    pub(crate) fn new(reader: R) -> Lines<R> {
        Lines { reader, line: 0 }
    }

    /// What it reads from.
    pub(crate) fn reader(&self) -> &R {
        &self.reader
    }

    /// Reads the next line into `line`, which is emptied first; false at the end.
    pub(crate) fn read(&mut self, line: &mut Vec<u8>) -> Result<bool, LineError> {
        line.clear();
        let mut seen = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LineError::Io(error)),
            };
            if chunk.is_empty() {
                self.line += u64::from(seen);
                return Ok(seen);
            }
            seen = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = end.unwrap_or(chunk.len());
            if line.len() + part > RECORD_BYTES_CEILING {
                return Err(LineError::TooLong { line: self.line + 1 });
            }
            line.extend_from_slice(&chunk[..part]);
            self.reader.consume(part + usize::from(end.is_some()));
            if end.is_some() {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                self.line += 1;
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn all(text: &[u8]) -> Vec<Vec<u8>> {
        // A tiny buffer, so that lines lie across its borders.
        let mut lines = Lines::new(BufReader::with_capacity(2, text));
        let (mut out, mut line) = (Vec::new(), Vec::new());
        while lines.read(&mut line).unwrap() {
            out.push(line.clone());
        }
        out
    }

    #[test]
    fn line_ends_are_stripped_and_nothing_else_is() {
        assert_eq!(all(b"a\nb\r\nc\rd\n\n\xff"), [&b"a"[..], b"b", b"c\rd", b"", b"\xff"]);
        assert_eq!(all(b"one\n"), [b"one"]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn a_line_over_the_bound_is_named() {
        let text = [b"ok\n".to_vec(), vec![b'x'; RECORD_BYTES_CEILING + 1]].concat();
        let mut lines = Lines::new(&text[..]);
        let mut line = Vec::new();
        assert!(lines.read(&mut line).unwrap());
        assert!(matches!(lines.read(&mut line), Err(LineError::TooLong { line: 2 })));
    }
}
