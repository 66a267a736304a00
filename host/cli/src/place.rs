//! A place in a topic as people name it: `beginning`, `end`, an offset, a time, or how long ago.

use protocol::{Offset, control::OffsetSpec};

use crate::{clock, human};

/// A place in every partition of a topic, as it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// As the broker takes it.
    Spec(OffsetSpec),
    /// So many milliseconds before now.
    Ago(u64),
}

impl Place {
    /// As the broker takes it.
    pub(crate) fn spec(self) -> OffsetSpec {
        match self {
            Place::Spec(spec) => spec,
            Place::Ago(ms) => {
                OffsetSpec::Timestamp(clock::now_ms().saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// Reads a place from the command line.
pub(crate) fn parse(text: &str) -> Result<Place, String> {
    let spec = match text {
        "beginning" => OffsetSpec::Beginning,
        "end" => OffsetSpec::End,
        _ => {
            if let Some(ago) = text.strip_prefix('-') {
                return human::parse_duration_ms(ago).map(Place::Ago).map_err(|error| error.to_string());
            }
            if let Ok(offset) = text.parse::<u64>() {
                if offset > Offset::MAX.0 {
                    return Err(format!("offset {offset} is larger than any can be ({})", Offset::MAX));
                }
                OffsetSpec::At(Offset(offset))
            } else {
                OffsetSpec::Timestamp(human::parse_time_ms(text).map_err(|_| {
                    "give `beginning`, `end`, an offset, a time such as `2026-03-01T12:00:00Z`, or `-10m`".to_owned()
                })?)
            }
        }
    };
    Ok(Place::Spec(spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_understood() {
        assert_eq!(parse("beginning").unwrap(), Place::Spec(OffsetSpec::Beginning));
        assert_eq!(parse("end").unwrap(), Place::Spec(OffsetSpec::End));
        assert_eq!(parse("42").unwrap(), Place::Spec(OffsetSpec::At(Offset(42))));
        assert_eq!(parse("1970-01-01T00:00:01Z").unwrap(), Place::Spec(OffsetSpec::Timestamp(1_000)));
        assert_eq!(parse("-10m").unwrap(), Place::Ago(600_000));
        for bad in ["", "start", "-", "-10", "10m", "18446744073709551615", "2026-13-01T00:00:00Z"] {
            assert!(parse(bad).is_err(), "{bad:?} passed");
        }
    }
}
