//! Sizes, durations and times as people write them, in flags, configuration and errors.
//!
//! Owns both directions, so that what one place prints another one takes. Pure: never reads a clock.

mod time;

use std::{error, fmt};

pub use time::{parse_time_ms, time};

/// Milliseconds per unit, largest first.
const DURATIONS: [(u64, &str); 4] = [(MS_PER_DAY, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
const MS_PER_DAY: u64 = 24 * 3_600 * 1_000;

/// Bytes per unit, largest first; binary before decimal where both fit.
const SIZES: [(u64, &str); 8] = [
    (1 << 40, "TiB"),
    (1_000_000_000_000, "TB"),
    (1 << 30, "GiB"),
    (1_000_000_000, "GB"),
    (1 << 20, "MiB"),
    (1_000_000, "MB"),
    (1 << 10, "KiB"),
    (1_000, "kB"),
];

/// Text that is no size, duration or time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUnderstood(String);

impl NotUnderstood {
    /// With what was given and what would be understood.
    pub fn new(text: impl Into<String>) -> NotUnderstood {
        NotUnderstood(text.into())
    }
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for NotUnderstood {}

/// `7d`, `12h`, `1h30m`, `500ms`, in milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, NotUnderstood> {
    let wrong = || NotUnderstood::new(format!("`{text}` is not a duration such as `7d`, `12h`, `1h30m` or `500ms`"));
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => MS_PER_DAY,
            "w" => 7 * MS_PER_DAY,
            _ => return Err(wrong()),
        };
        let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
        total = ms.and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// `4096`, `64KiB`, `10MB`, `1GiB`, in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, NotUnderstood> {
    let wrong = || NotUnderstood::new(format!("`{text}` is not a size such as `4096`, `64KiB`, `10MB` or `1GiB`"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes)).ok_or_else(wrong)
}

/// `1572864` as `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// The largest unit that divides it without a rest, as [`parse_bytes`] takes it: `10737418240` as `10GiB`.
pub fn exact_bytes(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// The largest unit that divides it without a rest, as [`parse_duration_ms`] takes it: `604800000` as `7d`.
pub fn duration_ms(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let unit = DURATIONS.iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_both_ways() {
        for (text, ms) in [("7d", 604_800_000), ("12h", 43_200_000), ("500ms", 500), ("90s", 90_000), ("0s", 0)] {
            assert_eq!(parse_duration_ms(text).unwrap(), ms);
            assert_eq!(parse_duration_ms(&duration_ms(ms)).unwrap(), ms);
        }
        assert_eq!(parse_duration_ms("1h30m").unwrap(), 5_400_000);
        for bad in ["", "7", "d", "7x", "-7d", "7d3", "99999999999999999999d", "9999999999999w"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn sizes_are_understood() {
        for (text, size) in [("0", 0), ("4096", 4_096), ("64KiB", 65_536), ("10 MB", 10_000_000), ("1G", 1 << 30)] {
            assert_eq!(parse_bytes(text).unwrap(), size);
        }
        for (size, text) in [(0, "0"), (4_097, "4097"), (10 << 30, "10GiB"), (500_000_000, "500MB"), (1_536, "1536")] {
            assert_eq!(exact_bytes(size), text);
            assert_eq!(parse_bytes(text).unwrap(), size);
        }
        for bad in ["", "KiB", "1.5MiB", "-1", "1 zebra", "99999999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?} passed");
        }
        for (size, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1 KiB"), (1_572_864, "1.5 MiB"), (1 << 40, "1 TiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }
}
