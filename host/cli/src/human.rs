//! Numbers, times and durations as people read and write them; sizes are `protocol`'s, which other crates print as well.
//!
//! Owns both directions, so that what a command prints another one takes. Pure: never reads a clock.

use std::time::Duration;

pub(crate) use protocol::units::{
    NotUnderstood, bytes, duration_ms, parse_bytes, parse_duration_ms, parse_time_ms, time,
};

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `count` with its noun: `1 record`, `2 records`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let ending = match number {
        1 => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {noun}{ending}", count(number))
}

/// How long something has been running, in its two largest units: `3d 4h`, `5m 12s`.
pub(crate) fn uptime(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A measured time with three digits: `12.3 ms`, `1.24 s`.
pub(crate) fn elapsed(time: Duration) -> String {
    nanos(time.as_nanos() as f64)
}

/// Nanoseconds with a unit and about three digits.
pub(crate) fn nanos(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => return format!("{ns:.0} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// At most `width` characters of one line: control characters become spaces, a cut is marked with `…`.
pub(crate) fn one_line(text: &str, width: usize) -> String {
    let mut line = String::with_capacity(text.len().min(width * 4));
    for (place, c) in text.chars().enumerate() {
        if place + 1 == width && text.chars().nth(place + 1).is_some() {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_show_their_two_largest_units() {
        for (ms, text) in [(999, "0s"), (312_000, "5m 12s"), (7_500_000, "2h 5m"), (273_600_000, "3d 4h")] {
            assert_eq!(uptime(ms), text);
        }
    }

    #[test]
    fn text_is_cut_at_the_width() {
        assert_eq!(one_line("abc", 3), "abc");
        assert_eq!(one_line("abcd", 3), "ab…");
        assert_eq!(one_line("a\tb\nc", 9), "a b c");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!((counted(1, "record"), counted(0, "batch")), ("1 record".to_owned(), "0 batches".to_owned()));
        assert_eq!(nanos(12.4), "12 ns");
        assert_eq!(nanos(1_240_000_000.0), "1.24 s");
    }
}
