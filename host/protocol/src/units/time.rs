//! Moments as people write them: RFC 3339, in the Gregorian calendar.
//!
//! Owns the calendar. Pure: never reads a clock.

use super::NotUnderstood;

const MS_PER_DAY: i64 = 24 * 3_600 * 1_000;

/// RFC 3339 (`2026-03-01T12:00:00Z`, with fractions and offsets), in milliseconds since 1970.
///
/// # Errors
/// When it is no such time.
pub fn parse_time_ms(text: &str) -> Result<i64, NotUnderstood> {
    let wrong = || NotUnderstood::new(format!("`{text}` is not a time such as `2026-03-01T12:00:00Z`"));
    let bytes = text.as_bytes();
    let field = |from: usize, len: usize| -> Option<i64> {
        let digits = bytes.get(from..from + len)?;
        digits.iter().try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let mark = |at: usize, marks: &[u8]| bytes.get(at).is_some_and(|byte| marks.contains(byte)).then_some(());
    let parse = || -> Option<i64> {
        let (year, month, day) = (field(0, 4)?, field(5, 2)?, field(8, 2)?);
        let (hour, minute, second) = (field(11, 2)?, field(14, 2)?, field(17, 2)?);
        mark(4, b"-")?;
        mark(7, b"-")?;
        mark(10, b"Tt ")?;
        mark(13, b":")?;
        mark(16, b":")?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction_ms, zone_at) = parse_fraction(bytes, 19)?;
        let zone_ms = match bytes.get(zone_at)? {
            b'Z' | b'z' if bytes.len() == zone_at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == zone_at + 6 => {
                mark(zone_at + 3, b":")?;
                let zone = (field(zone_at + 1, 2)? * 60 + field(zone_at + 4, 2)?) * 60_000;
                if *sign == b'+' { zone } else { -zone }
            }
            _ => return None,
        };
        let of_day = ((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms;
        Some(days_from_civil(year, month, day) * MS_PER_DAY + of_day - zone_ms)
    };
    parse().ok_or_else(wrong)
}

/// The milliseconds of an optional fraction that begins at `at`, and the place behind it.
fn parse_fraction(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    if bytes.get(at) != Some(&b'.') {
        return Some((0, at));
    }
    let digits = bytes.get(at + 1..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let ms = (0..3).fold(0, |ms, place| {
        let digit = if place < digits { i64::from(bytes[at + 1 + place] - b'0') } else { 0 };
        ms * 10 + digit
    });
    Some((ms, at + 1 + digits))
}

/// RFC 3339 in UTC, with milliseconds only where there are any.
#[must_use]
pub fn time(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let (second, fraction) = (of_day / 1_000, of_day % 1_000);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:03}") };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The other way round.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2015-05-17T10:05:03Z", 1_431_857_103_000),
            ("2000-02-29T23:59:59.250Z", 951_868_799_250),
            ("1969-12-31T23:59:59Z", -1_000),
        ] {
            assert_eq!(parse_time_ms(text).unwrap(), ms);
            assert_eq!(time(ms), text);
        }
        assert_eq!(parse_time_ms("2015-05-17T12:05:03+02:00").unwrap(), 1_431_857_103_000);
        assert_eq!(parse_time_ms("1970-01-01 00:00:00.123456Z").unwrap(), 123);
        for bad in ["", "2015-05-17", "2015-02-30T00:00:00Z", "2015-05-17T24:00:00Z", "2015-05-17T10:05:03", "x"] {
            assert!(parse_time_ms(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn every_day_of_four_centuries_goes_both_ways() {
        for days in days_from_civil(1_900, 1, 1)..days_from_civil(2_300, 1, 1) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=days_in_month(year, month)).contains(&day));
        }
    }
}
