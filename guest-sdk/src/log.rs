//! Lines to the host's log.

use std::fmt;

use abi::LogLevel;

/// Logs one line. The host adds topic, partition and transform, and limits how many lines and how long they may be.
///
/// ```
/// use guest_sdk::{LogLevel, log};
/// log(LogLevel::Warn, format_args!("status {} is odd", 999));
/// ```
///
/// Natively (in tests) it goes to stderr.
pub fn log(level: LogLevel, line: fmt::Arguments<'_>) {
    match line.as_str() {
        Some(line) => crate::exports::log(level, line),
        None => crate::exports::log(level, &line.to_string()),
    }
}
