//! Text that people write: names, words, sizes, durations, times, and the configuration of a broker.

use std::str::FromStr;

use protocol::{
    CleanupPolicy, NameError, OnError, PluginName, TopicName, TransformName,
    limits::NAME_BYTES_MAX,
    units::{self, NotUnderstood},
};
use server::ServerConfig;

use crate::{Seeds, allocations::bounded};

/// Any text as a name, and as every word and number that flags take.
pub fn name(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    bounded((64 << 10) + 64 * data.len(), || {
        check_name(text, TopicName::new, TopicName::as_str);
        check_name(text, PluginName::new, PluginName::as_str);
        check_name(text, TransformName::new, TransformName::as_str);
        if let Ok(dead_letter) = TopicName::new(text).and_then(|topic| topic.dead_letter()) {
            assert_eq!(dead_letter.as_str().strip_suffix(".dlq"), Some(text));
        }
        check_word::<CleanupPolicy>(text);
        check_word::<OnError>(text);
        check_number(text, units::parse_bytes, units::exact_bytes);
        check_number(text, units::parse_duration_ms, units::duration_ms);
        check_number(text, units::parse_time_ms, units::time);
    });
}

fn check_name<T>(text: &str, new: fn(&str) -> Result<T, NameError>, as_str: fn(&T) -> &str) {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_valid =
        (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_legal) && !matches!(text, "." | "..");
    match new(text) {
        Ok(name) => assert!(is_valid && as_str(&name) == text, "`{text}` is taken for a name"),
        Err(error) => assert!(!is_valid && error.to_string().contains("name"), "`{text}` is refused: {error}"),
    }
}

/// What is taken is shown as something that is taken for the same.
fn check_word<T: FromStr<Err: ToString> + ToString + PartialEq + std::fmt::Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(word) => assert_eq!(word.to_string().parse::<T>().ok(), Some(word)),
        Err(error) => assert!(error.to_string().contains(text), "an error does not say what it refuses"),
    }
}

fn check_number<T: Copy + PartialEq + std::fmt::Debug>(
    text: &str,
    parse: fn(&str) -> Result<T, NotUnderstood>,
    show: fn(T) -> String,
) {
    match parse(text) {
        Ok(number) => assert_eq!(parse(&show(number)), Ok(number), "`{text}` is shown as `{}`", show(number)),
        Err(error) => assert!(error.to_string().contains(text), "an error does not say what it refuses"),
    }
}

/// Any text as a broker's configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    bounded((1 << 20) + 1_024 * data.len(), || match ServerConfig::from_toml(text) {
        Ok(config) => {
            config.check().expect("what was taken is possible");
            let shown = config.to_toml();
            assert_eq!(ServerConfig::from_toml(&shown).ok(), Some(config), "what is shown is not what is in force");
        }
        Err(error) => assert!(error.to_string().len() > 10, "an error says nothing: {error}"),
    });
}

/// A name, a word, and numbers with units.
pub(crate) fn name_seeds() -> Seeds {
    let seeds = [
        ("topic", "clicks.eu-1_a"),
        ("dots", ".."),
        ("long", &*"x".repeat(NAME_BYTES_MAX)),
        ("policy", "compact,delete"),
        ("on-error", "dead-letter"),
        ("size", "10GiB"),
        ("duration", "1h30m500ms"),
        ("time", "2015-05-17T12:05:03.250+02:00"),
    ]
    .map(|(name, text)| (name, text.as_bytes().to_vec()));
    seeds.to_vec()
}

/// Nothing, everything, and what must be refused.
pub(crate) fn config_seeds() -> Seeds {
    let sections = "[storage]\nbudget = '80%'\ncommit_interval = '50ms'\n[transport]\nprofile = 'latency'\n";
    vec![
        ("default", ServerConfig::default().to_toml().into_bytes()),
        ("sections", sections.into()),
        ("unknown", "[transprot]\nprofile = 'latency'\n".into()),
        ("impossible", "quic = '[::1]:9000'\n[ingest]\nbytes_max = 100\n".into()),
    ]
}
