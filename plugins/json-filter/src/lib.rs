//! Keeps the JSON records in which a value passes a test.
//!
//! ```json
//! {"pointer": "/status", "op": ">=", "value": 400}
//! ```
//!
//! | op | passes where the value at the pointer |
//! | --- | --- |
//! | `eq`, `==` | is the same |
//! | `ne`, `!=` | is another, of whatever type |
//! | `lt`, `<`, `le`, `<=`, `gt`, `>`, `ge`, `>=` | is a number (or a string) and so ordered; strings by their bytes |
//! | `contains` | is a string with that text in it, or an array with that element |
//! | `exists` | is there, null or not; with `"value": false`, is not there |
//!
//! - A record without a value at the pointer is dropped, whatever the op (but for `exists` with `false`).
//! - Types are not converted: `"400"` is not 400. Integers of up to 64 bits are compared exactly.
//! - A record that is not JSON, or has no value, is a failure with code 1. All of it is checked, not only up to the pointer.
//! - Where an object has a name twice, the last one counts.

mod test;

use guest_sdk::{
    Failure, Record, guest,
    json::{self, Pointer},
};
use serde::Deserialize;
use test::{Config, Test};

guest! {
    filter: keep,
    config: Filter,
    schema: r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["pointer", "op"],
        "properties": {
            "pointer": {"type": "string", "description": "a JSON pointer (RFC 6901)"},
            "op": {"enum": ["eq", "ne", "lt", "le", "gt", "ge", "contains", "exists", "==", "!=", "<", "<=", ">", ">="]},
            "value": {"type": ["null", "boolean", "number", "string"], "description": "what to compare with"}
        }
    }"#,
}

/// The record is not JSON.
const NOT_JSON: u16 = 1;

/// A test and where the value is that must pass it.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Filter {
    pointer: Pointer,
    test: Test,
}

fn keep(filter: &Filter, record: &Record<'_>) -> Result<bool, Failure> {
    let value = record.value().ok_or_else(|| Failure::new(NOT_JSON, "not JSON: the record has no value"))?;
    let found = json::find(value, &filter.pointer).map_err(|error| Failure::new(NOT_JSON, error.to_string()))?;
    Ok(filter.test.passes(found))
}

#[cfg(test)]
mod tests;
