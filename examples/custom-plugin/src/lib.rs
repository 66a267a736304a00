//! Keeps the readings above a temperature, and writes them as JSON: `oven 180` becomes `{"sensor":"oven","celsius":180}`.
//!
//! ```json
//! {"above": 30}
//! ```
//!
//! A record that is no reading is a failure with code 1. See `../custom_plugin.rs` for how it is deployed.

use std::fmt::Write;

use guest_sdk::{Failure, NewValue, Record, Verdict, guest};
use serde::Deserialize;

guest! { filter_map: hot, config: Config }

/// The record is no reading.
const NO_READING: u16 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Degrees Celsius.
    above: f64,
}

fn hot(config: &Config, record: &Record<'_>, json: &mut NewValue<'_>) -> Result<Verdict, Failure> {
    let line = record.value().and_then(|value| str::from_utf8(value).ok()).unwrap_or_default();
    let reading = line.split_once(' ').and_then(|(sensor, celsius)| Some((sensor, celsius.parse::<f64>().ok()?)));
    let (sensor, celsius) = reading.ok_or_else(|| Failure::new(NO_READING, format!("no reading: `{line}`")))?;
    if celsius <= config.above {
        return Ok(Verdict::Drop);
    }
    json.push_str(r#"{"sensor":"#);
    json.push_json_str(sensor);
    write!(json, r#","celsius":{celsius}}}"#).expect("writing to memory cannot fail");
    Ok(Verdict::Replace)
}

#[cfg(test)]
mod tests {
    use guest_sdk::testing::{self, Outcome};

    use super::*;

    #[test]
    fn hot_readings_become_json_and_the_others_go() {
        let lines = ["kitchen 21.5", "oven 180", "no reading"].map(Into::into);
        let outcomes = testing::run::<Guest>(r#"{"above":30}"#, &lines).unwrap();
        assert_eq!(outcomes[..2], [Outcome::Dropped, Outcome::value(r#"{"sensor":"oven","celsius":180}"#)]);
        assert!(matches!(&outcomes[2], Outcome::Failed { code: NO_READING, .. }), "{:?}", outcomes[2]);
    }
}
