//! What a transform did to a value, in words: the fields it changed, removed or added.
//!
//! Pure text; knows JSON and nothing of records.

use serde_json::Value;

/// One difference of two JSON values, or of two texts where one of them is no JSON object.
pub(super) fn lines(before: &[u8], after: &[u8]) -> Vec<String> {
    match (object(before), object(after)) {
        (Some(before), Some(after)) => {
            let mut lines = Vec::new();
            compare("", &before, &after, &mut lines);
            lines
        }
        (None, Some(Value::Object(fields))) => {
            let field = |(name, value): (&String, &Value)| format!("{name}: {value}");
            fields.iter().map(field).collect()
        }
        _ => vec![crate::value::show(after)],
    }
}

fn object(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().filter(Value::is_object)
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if before != after {
            lines.push(format!("{path}: {before} -> {after}"));
        }
        return;
    };
    let place = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, value) in old {
        match new.get(name) {
            Some(now) => compare(&place(name), value, now, lines),
            None => lines.push(format!("{}: removed", place(name))),
        }
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        lines.push(format!("{}: {value}, new", place(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let before = br#"{"ip":"198.51.1.9","user":{"id":7,"email":"a@b"},"trace":"x","same":[1]}"#;
        let after = br#"{"ip":"198.51.1.0","user":{"id":7,"email":"***"},"same":[1],"at":1}"#;
        let told = lines(before, after);
        assert_eq!(
            told,
            [r#"ip: "198.51.1.9" -> "198.51.1.0""#, r#"user.email: "a@b" -> "***""#, "trace: removed", "at: 1, new"]
        );
        assert!(lines(after, after).is_empty());
    }

    #[test]
    fn a_text_that_became_an_object_is_told_field_by_field() {
        assert_eq!(lines(b"GET / 404", br#"{"status":404,"path":"/"}"#), ["status: 404", r#"path: "/""#]);
        assert_eq!(lines(b"{}", b"plain"), ["plain"]);
    }
}
