//! Bytes of records as people and JSON see them.

use serde_json::{Map, Value};

/// Puts bytes into a JSON object: as text under `name` where they are UTF-8, as hex under `<name>_hex` where not.
pub(crate) fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        object.insert(name.to_owned(), Value::Null);
        return;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::String(text.to_owned())),
        Err(_) => object.insert(format!("{name}_hex"), Value::String(hex(bytes))),
    };
}

/// Bytes as text for a screen; what is not UTF-8 is shown as hex.
pub(crate) fn show(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| format!("0x{}", hex(bytes)), str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_is_hex() {
        let mut object = Map::new();
        put(&mut object, "key", None);
        put(&mut object, "value", Some("grün".as_bytes()));
        put(&mut object, "other", Some(b"\xff\x00"));
        assert_eq!(Value::Object(object).to_string(), r#"{"key":null,"value":"grün","other_hex":"ff00"}"#);
        assert_eq!(show(b"\xff\x00"), "0xff00");
    }
}
