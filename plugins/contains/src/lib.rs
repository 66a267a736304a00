//! Keeps the records whose value contains a text.
//!
//! ```json
//! {"contains": "Googlebot"}
//! ```
//!
//! The value is searched as it is, byte by byte: case matters, and so do escapes of whatever format it is in. A record
//! without a value contains nothing and is dropped.

use guest_sdk::{Record, guest};
use memchr::memmem::Finder;
use serde::Deserialize;

guest! {
    filter: keep,
    config: Contains,
    schema: r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["contains"],
        "properties": {"contains": {"type": "string", "minLength": 1, "description": "what a value must contain"}}
    }"#,
}

fn keep(contains: &Contains, record: &Record<'_>) -> bool {
    record.value().is_some_and(|value| contains.finder.find(value).is_some())
}

/// The text, prepared for searching.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Contains {
    finder: Finder<'static>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    contains: String,
}

impl TryFrom<Config> for Contains {
    type Error = &'static str;

    fn try_from(config: Config) -> Result<Self, Self::Error> {
        if config.contains.is_empty() {
            return Err("`contains` is empty: every record would pass");
        }
        Ok(Contains { finder: Finder::new(&config.contains).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use guest_sdk::testing::{self, Outcome, TestRecord};

    use super::*;

    #[test]
    fn records_that_contain_the_text_are_kept() {
        let long = "x".repeat(500) + "bot" + &"y".repeat(500);
        let records = ["a bot", "bo t", "", "BOT", &long].map(TestRecord::from);
        let outcomes = testing::run::<Guest>(r#"{"contains":"bot"}"#, &records).unwrap();
        let (kept, dropped) = (Outcome::Kept, Outcome::Dropped);
        assert_eq!(outcomes, [kept.clone(), dropped.clone(), dropped.clone(), dropped, kept]);
    }

    #[test]
    fn a_record_without_a_value_is_dropped() {
        let outcomes = testing::run::<Guest>(r#"{"contains":"bot"}"#, &[TestRecord::tombstone().key("bot")]).unwrap();
        assert_eq!(outcomes, [Outcome::Dropped]);
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_too() {
        let outcomes = testing::run::<Guest>(r#"{"contains":"é"}"#, &[b"\xff\xc3\xa9\xfe".to_vec().into()]).unwrap();
        assert_eq!(outcomes, [Outcome::Kept]);
    }

    #[test]
    fn what_would_keep_everything_or_is_unknown_is_refused() {
        for config in [r#"{"contains":""}"#, "{}", r#"{"contains":"a","case":false}"#] {
            assert!(testing::run::<Guest>(config, &[]).is_err(), "{config}");
        }
    }

    #[test]
    fn it_describes_itself() {
        assert_eq!(testing::describe::<Guest>()["config"]["required"][0], "contains");
    }
}
