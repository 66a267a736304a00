//! From the configuration's JSON to the plugin's own type.

use serde::{Deserialize, de::DeserializeOwned};

/// The configuration of a plugin that has none: `{}` is taken, anything else refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads a configuration. Fields that the type does not know are refused, whether or not it says so itself: a
/// misspelt setting must not pass for one that was not given.
pub(crate) fn parse<C: DeserializeOwned>(json: &[u8]) -> Result<C, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut unknown = Vec::new();
    let config = serde_ignored::deserialize(&mut deserializer, |path| unknown.push(path.to_string()))
        .map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    match unknown.first() {
        None => Ok(config),
        Some(path) => Err(format!("unknown field `{path}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Config {
        limit: u32,
        nested: Option<Nested>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Nested {
        name: String,
    }

    #[test]
    fn what_fits_the_type_is_taken() {
        assert_eq!(parse(br#"{"limit":3}"#), Ok(Config { limit: 3, nested: None }));
        assert_eq!(parse::<NoConfig>(b" {} "), Ok(NoConfig {}));
    }

    #[test]
    fn unknown_fields_are_refused_by_name_at_any_depth() {
        assert_eq!(parse::<Config>(br#"{"limit":3,"limits":4}"#), Err("unknown field `limits`".to_owned()));
        let nested = parse::<Config>(br#"{"limit":3,"nested":{"name":"a","nmae":"b"}}"#).unwrap_err();
        assert!(nested.starts_with("unknown field `nested") && nested.ends_with("nmae`"), "{nested}");
        assert!(parse::<NoConfig>(br#"{"a":1}"#).unwrap_err().contains("`a`"));
    }

    #[test]
    fn what_is_missing_or_no_json_is_refused() {
        assert!(parse::<Config>(b"{}").unwrap_err().contains("`limit`"));
        assert!(parse::<Config>(br#"{"limit":3} x"#).is_err());
        assert!(parse::<Config>(b"").is_err());
    }
}
