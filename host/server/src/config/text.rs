//! Values that people write with a unit: sizes, shares, durations. A plain number is a number of bytes.
//!
//! Owns how they stand in the file; each module is for `#[serde(with = ..)]`.

use std::fmt;

use protocol::units::NotUnderstood;
use serde::{
    Deserializer,
    de::{Error, Visitor},
};

/// Text or a whole number, understood by one parser.
struct Text<T> {
    parse: fn(&str) -> Result<T, NotUnderstood>,
    expected: &'static str,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

fn read<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    parse: fn(&str) -> Result<T, NotUnderstood>,
    expected: &'static str,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Text { parse, expected })
}

/// `80%`, `10GiB`.
pub(super) mod budget {
    use broker::Budget;
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(budget: &Budget, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(budget)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Budget, D::Error> {
        super::read(deserializer, str::parse, "a size or a share, such as `10GiB` or `80%`")
    }
}

/// `32MiB`.
pub(super) mod size {
    use protocol::units;
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&units::exact_bytes(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        super::read(deserializer, units::parse_bytes, "a size, such as `32MiB`")
    }
}

/// `50ms`; whole milliseconds.
pub(super) mod duration {
    use std::time::Duration;

    use protocol::units::{self, NotUnderstood};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&units::duration_ms(duration.as_millis() as u64))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::read(deserializer, parse, "a duration, such as `50ms`")
    }

    pub(crate) fn parse(text: &str) -> Result<Duration, NotUnderstood> {
        // Nothing is nothing in every unit.
        let ms = if text == "0" { 0 } else { units::parse_duration_ms(text)? };
        Ok(Duration::from_millis(ms))
    }
}
