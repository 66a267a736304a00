//! Every comparison, on values that have it and values that do not; natively, without an engine.

use guest_sdk::testing::{self, Outcome, TestRecord};

use super::*;

/// Which of these documents a configuration keeps.
fn kept<'a>(config: &str, documents: &[&'a str]) -> Vec<&'a str> {
    let records: Vec<TestRecord> = documents.iter().map(|&document| document.into()).collect();
    let outcomes = testing::run::<Guest>(config, &records).unwrap();
    let of = |(document, outcome): (&&'a str, &Outcome)| match outcome {
        Outcome::Kept => Some(*document),
        Outcome::Dropped => None,
        other => panic!("{document}: {other:?}"),
    };
    documents.iter().zip(&outcomes).filter_map(of).collect()
}

const NUMBERS: [&str; 6] = [r#"{"n":399}"#, r#"{"n":4e2}"#, r#"{"n":400.5}"#, r#"{"n":-1}"#, r#"{"n":"400"}"#, "{}"];

#[test]
fn numbers_are_compared_as_numbers() {
    let kept = |op: &str| kept(&format!(r#"{{"pointer":"/n","op":"{op}","value":400}}"#), &NUMBERS);
    let [n399, n400, n400_5, minus, text, _] = NUMBERS;
    assert_eq!(kept("eq"), [n400]);
    assert_eq!(kept("ne"), [n399, n400_5, minus, text]);
    assert_eq!(kept("lt"), [n399, minus]);
    assert_eq!(kept("le"), [n399, n400, minus]);
    assert_eq!(kept("gt"), [n400_5]);
    assert_eq!(kept("ge"), [n400, n400_5]);
}

#[test]
fn symbols_mean_the_same_as_words() {
    for (symbol, word) in [("==", "eq"), ("!=", "ne"), ("<", "lt"), ("<=", "le"), (">", "gt"), (">=", "ge")] {
        let [by_symbol, by_word] =
            [symbol, word].map(|op| kept(&format!(r#"{{"pointer":"/n","op":"{op}","value":400}}"#), &NUMBERS));
        assert_eq!(by_symbol, by_word, "{symbol}");
    }
}

#[test]
fn large_integers_are_compared_exactly() {
    let config = r#"{"pointer":"","op":"eq","value":9007199254740993}"#;
    assert_eq!(kept(config, &["9007199254740992", "9007199254740993"]), ["9007199254740993"]);
    let config = r#"{"pointer":"","op":">","value":9223372036854775807}"#;
    assert_eq!(kept(config, &["18446744073709551615", "-1"]), ["18446744073709551615"]);
}

#[test]
fn strings_are_compared_with_escapes_undone() {
    let documents = [r#"{"s":"b"}"#, r#"{"s":"\u0062"}"#, r#"{"s":"a"}"#, r#"{"s":"bb"}"#, r#"{"s":null}"#];
    let kept = |op: &str| kept(&format!(r#"{{"pointer":"/s","op":"{op}","value":"b"}}"#), &documents);
    assert_eq!(kept("eq"), documents[..2]);
    assert_eq!(kept("lt"), documents[2..3]);
    assert_eq!(kept("ge"), [documents[0], documents[1], documents[3]]);
}

#[test]
fn null_and_truth_can_be_asked_for() {
    let documents = ["null", "true", "false", "0"];
    assert_eq!(kept(r#"{"pointer":"","op":"eq","value":null}"#, &documents), ["null"]);
    assert_eq!(kept(r#"{"pointer":"","op":"eq","value":true}"#, &documents), ["true"]);
    assert_eq!(kept(r#"{"pointer":"","op":"ne","value":false}"#, &documents), ["null", "true", "0"]);
}

#[test]
fn contains_looks_into_strings_and_arrays() {
    let documents =
        [r#"{"a":"xbotx"}"#, r#"{"a":["bot",1]}"#, r#"{"a":["bots"]}"#, r#"{"a":{"bot":1}}"#, r#"{"b":"bot"}"#];
    assert_eq!(kept(r#"{"pointer":"/a","op":"contains","value":"bot"}"#, &documents), documents[..2]);
    assert_eq!(kept(r#"{"pointer":"/a","op":"contains","value":1.0}"#, &documents), documents[1..2]);
}

#[test]
fn exists_asks_for_presence_or_absence() {
    let documents = [r#"{"a":null}"#, r#"{"a":1}"#, r#"{"b":1}"#, "[1]"];
    assert_eq!(kept(r#"{"pointer":"/a","op":"exists"}"#, &documents), documents[..2]);
    assert_eq!(kept(r#"{"pointer":"/a","op":"exists","value":true}"#, &documents), documents[..2]);
    assert_eq!(kept(r#"{"pointer":"/a","op":"exists","value":false}"#, &documents), documents[2..]);
}

#[test]
fn a_record_that_is_not_json_is_a_failure_even_behind_the_pointer() {
    let records = [TestRecord::from("GET / 404"), r#"{"n":400,"cut"#.into(), TestRecord::tombstone(), "{}".into()];
    let outcomes = testing::run::<Guest>(r#"{"pointer":"/n","op":"==","value":400}"#, &records).unwrap();
    for outcome in &outcomes[..3] {
        assert!(
            matches!(outcome, Outcome::Failed { code: NOT_JSON, text } if text.contains("not JSON")),
            "{outcome:?}"
        );
    }
    assert_eq!(outcomes[3], Outcome::Dropped);
}

#[test]
fn configurations_that_mean_nothing_are_refused() {
    for (config, why) in [
        (r#"{"op":"eq","value":1}"#, "pointer"),
        (r#"{"pointer":"status","op":"eq","value":1}"#, "not a JSON pointer"),
        (r#"{"pointer":"/a","op":"=","value":1}"#, "unknown variant"),
        (r#"{"pointer":"/a","op":"eq"}"#, "`value` is missing"),
        (r#"{"pointer":"/a","op":"<","value":true}"#, "neither a number nor a string"),
        (r#"{"pointer":"/a","op":"eq","value":[1]}"#, "an array or an object"),
        (r#"{"pointer":"/a","op":"exists","value":1}"#, "neither true nor false"),
        (r#"{"pointer":"/a","op":"eq","value":1,"not":true}"#, "unknown field `not`"),
    ] {
        let refused = testing::run::<Guest>(config, &[]).unwrap_err();
        assert!(refused.contains(why), "{config}: {refused}");
    }
}

#[test]
fn it_describes_itself() {
    assert_eq!(testing::describe::<Guest>()["config"]["required"][1], "op");
}
