//! What is kept, dropped and renamed; natively, without an engine.

use guest_sdk::testing::{self, Outcome, TestRecord};

use super::*;

fn outcome(config: &str, value: &str) -> Outcome {
    testing::run::<Guest>(config, &[TestRecord::from(value)]).unwrap().remove(0)
}

const ALL: &str = r#"{"a" : 1.50, "b":{"a":2},"c\u0041":[ 3 ],"d":null}"#;

#[test]
fn only_the_named_fields_stay_in_their_order() {
    assert_eq!(outcome(r#"{"keep":["d","a","x"]}"#, ALL), Outcome::value(r#"{"a":1.50,"d":null}"#));
    assert_eq!(outcome(r#"{"keep":["x"]}"#, ALL), Outcome::value("{}"));
}

#[test]
fn all_but_the_named_fields_stay() {
    assert_eq!(outcome(r#"{"drop":["a","cA"]}"#, ALL), Outcome::value(r#"{"b":{"a":2},"d":null}"#));
}

#[test]
fn fields_are_renamed_where_they_are() {
    assert_eq!(
        outcome(r#"{"rename":{"a":"x \"y\"","cA":"c"}}"#, ALL),
        Outcome::value(r#"{"x \"y\"":1.50,"b":{"a":2},"c":[ 3 ],"d":null}"#)
    );
    assert_eq!(outcome(r#"{"keep":["b"],"rename":{"b":"a"}}"#, ALL), Outcome::value(r#"{"a":{"a":2}}"#));
}

#[test]
fn names_can_be_exchanged() {
    assert_eq!(outcome(r#"{"rename":{"a":"b","b":"a"}}"#, r#"{"a":1,"b":2}"#), Outcome::value(r#"{"b":1,"a":2}"#));
}

#[test]
fn a_record_that_has_nothing_to_change_stays_as_it_is() {
    let untouched = r#"{ "b" : 1 }"#;
    for config in [r#"{"drop":["a"]}"#, r#"{"keep":["b"]}"#, r#"{"rename":{"a":"b"}}"#] {
        assert_eq!(outcome(config, untouched), Outcome::Kept, "{config}");
    }
    let tombstone = testing::run::<Guest>(r#"{"drop":["a"]}"#, &[TestRecord::tombstone()]).unwrap();
    assert_eq!(tombstone, [Outcome::Kept]);
}

#[test]
fn a_name_that_is_taken_is_a_failure_in_either_order() {
    for value in [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#] {
        let expected = "`a` would be renamed to `b`, which is there already".to_owned();
        assert_eq!(outcome(r#"{"rename":{"a":"b"}}"#, value), Outcome::Failed { code: NAME_TAKEN, text: expected });
    }
    assert_eq!(outcome(r#"{"drop":["b"],"rename":{"a":"b"}}"#, r#"{"a":1,"b":2}"#), Outcome::value(r#"{"b":1}"#));
}

#[test]
fn what_is_no_object_is_a_failure() {
    for value in ["[1]", "1", "", r#"{"a":1"#, "GET /"] {
        let outcome = outcome(r#"{"drop":["a"]}"#, value);
        assert!(matches!(outcome, Outcome::Failed { code: NOT_AN_OBJECT, .. }), "{value}: {outcome:?}");
    }
}

#[test]
fn configurations_that_mean_nothing_are_refused() {
    for (config, why) in [
        ("{}", "none of"),
        (r#"{"keep":[],"drop":[]}"#, "both"),
        (r#"{"keep":["a"],"rename":{"b":"c"}}"#, "does not stay"),
        (r#"{"rename":{"a":"c","b":"c"}}"#, "two fields"),
        (r#"{"kep":["a"]}"#, "unknown field `kep`"),
    ] {
        let refused = testing::run::<Guest>(config, &[]).unwrap_err();
        assert!(refused.contains(why), "{config}: {refused}");
    }
    assert!(testing::describe::<Guest>()["config"]["properties"]["keep"].is_object());
}
