//! What each way of masking leaves of a value; natively, without an engine.

use guest_sdk::testing::{self, Outcome, TestRecord};

use super::*;

fn outcome(config: &str, value: &str) -> Outcome {
    testing::run::<Guest>(config, &[TestRecord::from(value)]).unwrap().remove(0)
}

fn masked(config: &str, value: &str) -> String {
    outcome(config, value).text().expect("it is masked").to_owned()
}

#[test]
fn a_redacted_value_is_gone_whatever_it_was() {
    let config = r#"{"redact":["/a","/b/c"]}"#;
    for value in ["1", r#""secret""#, "true", r#"{"x":"secret"}"#, r#"["secret"]"#] {
        let record = format!(r#"{{ "a":{value}, "b" : {{"c":{value},"d":1.50}}}}"#);
        assert_eq!(masked(config, &record), r#"{ "a":"redacted", "b" : {"c":"redacted","d":1.50}}"#);
    }
}

#[test]
fn every_value_of_a_name_that_occurs_twice_is_masked() {
    assert_eq!(
        masked(r#"{"redact":["/a"]}"#, r#"{"a":"x","\u0061":"y","a":"z"}"#),
        r#"{"a":"redacted","\u0061":"redacted","a":"redacted"}"#
    );
}

#[test]
fn a_truncated_string_keeps_whole_characters() {
    let config = r#"{"truncate":{"/a":3}}"#;
    for (value, expected) in [
        (r#""abcdef""#, r#""abc""#),
        (r#""é𝄞\"x""#, r#""é𝄞\"""#),
        (r#""ab""#, r#""ab""#),
        (r#""""#, r#""""#),
        ("123456", r#""redacted""#),
        (r#"["abcdef"]"#, r#""redacted""#),
    ] {
        assert_eq!(masked(config, &format!(r#"{{"a":{value}}}"#)), format!(r#"{{"a":{expected}}}"#));
    }
}

#[test]
fn a_hash_is_alike_for_alike_values_under_one_key() {
    let hashed = |key: &str, value: &str| masked(&format!(r#"{{"hash":[""],"key":"{key}"}}"#), value);
    let key = "0123456789abcdef";
    // printf ann@example.org | openssl dgst -sha256 -hmac 0123456789abcdef
    assert_eq!(hashed(key, r#""ann@example.org""#), r#""b2eadfbaaca8f7b30b76563378bedc2f""#);
    assert_eq!(hashed(key, r#""ann\u0040example.org""#), hashed(key, r#""ann@example.org""#));
    assert_ne!(hashed(key, r#""bob@example.org""#), hashed(key, r#""ann@example.org""#));
    assert_ne!(hashed("another key of 16", r#""ann@example.org""#), hashed(key, r#""ann@example.org""#));
    assert_eq!(hashed(key, "42").len(), 34);
}

#[test]
fn an_address_becomes_its_network() {
    let config = r#"{"network":["/ip"]}"#;
    for (address, network) in [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("host.example", "redacted"),
        ("203.0.113.77:80", "redacted"),
        ("", "redacted"),
    ] {
        assert_eq!(masked(config, &format!(r#"{{"ip":"{address}"}}"#)), format!(r#"{{"ip":"{network}"}}"#));
    }
    assert_eq!(masked(config, r#"{"ip":3405803853}"#), r#"{"ip":"redacted"}"#);
}

#[test]
fn the_prefixes_can_be_set() {
    let masked = |ipv4: u32, ipv6: u32, ip: &str| {
        let config = format!(r#"{{"network":[""],"ipv4_prefix":{ipv4},"ipv6_prefix":{ipv6}}}"#);
        masked(&config, &format!("\"{ip}\""))
    };
    assert_eq!(masked(0, 0, "203.0.113.77"), r#""0.0.0.0""#);
    assert_eq!(masked(0, 0, "2001:db8::1"), r#""::""#);
    assert_eq!(masked(32, 128, "203.0.113.77"), r#""203.0.113.77""#);
    assert_eq!(masked(32, 128, "2001:db8::1"), r#""2001:db8::1""#);
    assert_eq!(masked(9, 33, "203.255.113.77"), r#""203.128.0.0""#);
}

#[test]
fn several_rules_are_followed_in_one_pass() {
    let config = r#"{"redact":["/z"],"truncate":{"/m":1},"network":["/a"]}"#;
    assert_eq!(
        masked(config, r#"{"z":1,"m":"mmm","k":[1, 2],"a":"10.1.2.3"}"#),
        r#"{"z":"redacted","m":"m","k":[1, 2],"a":"10.1.2.0"}"#
    );
}

#[test]
fn what_has_nothing_to_mask_stays_as_it_is() {
    let config = r#"{"redact":["/a"]}"#;
    for value in ["{}", r#"{"a":null}"#, "[1]", r#"{"b":{"a":1}}"#] {
        assert_eq!(outcome(config, value), Outcome::Kept, "{value}");
    }
    assert_eq!(testing::run::<Guest>(config, &[TestRecord::tombstone()]).unwrap(), [Outcome::Kept]);
}

#[test]
fn what_is_not_json_does_not_pass() {
    for value in ["a secret", r#"{"a":"secret""#, ""] {
        let outcome = outcome(r#"{"redact":["/a"]}"#, value);
        assert!(matches!(outcome, Outcome::Failed { code: NOT_JSON, .. }), "{value}: {outcome:?}");
    }
}

#[test]
fn configurations_that_mean_nothing_are_refused() {
    for (config, why) in [
        ("{}", "nothing is masked"),
        (r#"{"redact":["/a","/a"]}"#, "masked already"),
        (r#"{"redact":["/a"],"truncate":{"/a/b":1}}"#, "`/a/b` is masked already by `/a`"),
        (r#"{"redact":["a"]}"#, "not a JSON pointer"),
        (r#"{"truncate":{"a":1}}"#, "not a JSON pointer"),
        (r#"{"truncate":{"/a":-1}}"#, "invalid value"),
        (r#"{"hash":["/a"]}"#, "needs a `key`"),
        (r#"{"hash":["/a"],"key":"short"}"#, "shorter than 16"),
        (r#"{"redact":["/a"],"key":"0123456789abcdef"}"#, "nothing to `hash`"),
        (r#"{"network":["/a"],"ipv4_prefix":33}"#, "more than 32"),
        (r#"{"redact":["/a"],"hashes":[]}"#, "unknown field `hashes`"),
    ] {
        let refused = testing::run::<Guest>(config, &[]).unwrap_err();
        assert!(refused.contains(why), "{config}: {refused}");
    }
    let many = (0..65).map(|at| format!("\"/{at}\"")).collect::<Vec<_>>().join(",");
    let refused = testing::run::<Guest>(&format!(r#"{{"redact":[{many}]}}"#), &[]).unwrap_err();
    assert!(refused.contains("64 can be"), "{refused}");
}

#[test]
fn it_describes_itself() {
    assert_eq!(testing::describe::<Guest>()["config"]["properties"]["ipv4_prefix"]["default"], 24);
}
