//! The time of a line, `17/May/2015:10:05:03 +0000`, and how RFC 3339 writes it.

use guest_sdk::NewValue;

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A time that exists in the calendar, still as the line has it.
#[derive(Debug)]
pub(crate) struct Time<'a> {
    text: &'a [u8; 26],
    /// From 1.
    month: u8,
}

impl<'a> Time<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Time<'a>> {
        let text: &[u8; 26] = text.as_bytes().try_into().ok()?;
        let is_laid_out = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':'), (20, b' ')]
            .into_iter()
            .all(|(at, separator)| text[at] == separator);
        let month = MONTHS.iter().position(|month| *month == &text[3..6])? as u8 + 1;
        let year = 100 * two_digits(text, 7)? + two_digits(text, 9)?;
        let day = two_digits(text, 0)?;
        let is_in_range = (1..=days_of(month, year)).contains(&day)
            && two_digits(text, 12)? < 24
            && two_digits(text, 15)? < 60
            && two_digits(text, 18)? <= 60 // a leap second
            && matches!(text[21], b'+' | b'-')
            && two_digits(text, 22)? < 24
            && two_digits(text, 24)? < 60;
        (is_laid_out && is_in_range).then_some(Time { text, month })
    }

    pub(crate) fn push_rfc3339(&self, to: &mut NewValue<'_>) {
        let text = self.text;
        to.push(&text[7..11]);
        to.push(&[b'-', b'0' + self.month / 10, b'0' + self.month % 10, b'-', text[0], text[1], b'T']);
        to.push(&text[12..20]);
        if text[22..26] == *b"0000" {
            to.push(b"Z");
        } else {
            to.push(&text[21..24]);
            to.push(b":");
            to.push(&text[24..26]);
        }
    }
}

fn two_digits(text: &[u8; 26], at: usize) -> Option<u32> {
    let digit = |byte: u8| char::from(byte).to_digit(10);
    Some(10 * digit(text[at])? + digit(text[at + 1])?)
}

fn days_of(month: u8, year: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    }
}
