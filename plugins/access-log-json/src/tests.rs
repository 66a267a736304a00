//! Lines of web servers' logs, and what becomes of each; natively, without an engine.

use guest_sdk::testing::{self, Outcome, TestRecord};

use super::*;

const COMBINED: &str = r#"203.0.113.9 - ann [17/May/2015:10:05:03 +0200] "GET /a?b=c HTTP/1.1" 200 1234 "http://from.example/" "curl/8.5.0""#;

fn outcome(line: impl Into<Vec<u8>>) -> Outcome {
    testing::run::<Guest>("{}", &[TestRecord::from(line)]).unwrap().remove(0)
}

fn json(line: &str) -> serde_json::Value {
    let outcome = outcome(line);
    serde_json::from_str(outcome.text().unwrap_or_else(|| panic!("{line}: {outcome:?}"))).unwrap()
}

fn failure(line: impl Into<Vec<u8>>) -> String {
    match outcome(line) {
        Outcome::Failed { code: MALFORMED, text } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_combined_format_has_every_field_in_order() {
    assert_eq!(
        outcome(COMBINED).text().unwrap(),
        concat!(
            r#"{"remote_addr":"203.0.113.9","time":"2015-05-17T10:05:03+02:00","method":"GET","path":"/a?b=c","#,
            r#""protocol":"HTTP/1.1","status":200,"bytes":1234,"referer":"http://from.example/","user_agent":"curl/8.5.0"}"#
        )
    );
}

#[test]
fn the_common_format_has_no_client_fields() {
    let json = json(r#"::1 - - [29/Feb/2024:23:59:60 +0000] "HEAD / HTTP/2.0" 304 -"#);
    assert_eq!(json["remote_addr"], "::1");
    assert_eq!(json["time"], "2024-02-29T23:59:60Z");
    assert_eq!(json["status"], 304);
    assert_eq!(json["bytes"], serde_json::Value::Null);
    assert!(json.get("referer").is_none() && json.get("user_agent").is_none());
}

#[test]
fn a_dash_is_null_and_a_zero_is_zero() {
    let json = json(r#"h - - [01/Jan/2020:00:00:00 -0930] "GET / HTTP/1.0" 500 0 "-" "-""#);
    assert_eq!(json["bytes"], 0);
    assert!(json["referer"].is_null() && json["user_agent"].is_null());
    assert_eq!(json["time"], "2020-01-01T00:00:00-09:30");
}

#[test]
fn text_stays_as_the_server_wrote_it() {
    let json = json(r#"h - a b [01/Jan/2020:00:00:00 +0000] "GET /a b\"c HTTP/1.0" 200 1 "\xe4\\" "q\"uoted é""#);
    assert_eq!(json["path"], r#"/a b\"c"#);
    assert_eq!(json["referer"], r"\xe4\\");
    assert_eq!(json["user_agent"], r#"q\"uoted é"#);
}

#[test]
fn control_characters_are_escaped() {
    assert_eq!(json("h - - [01/Jan/2020:00:00:00 +0000] \"GET /\u{1}\t HTTP/1.0\" 200 1")["path"], "/\u{1}\t");
}

#[test]
fn one_line_end_is_ignored() {
    assert_eq!(outcome(format!("{COMBINED}\n")), outcome(COMBINED));
    assert_eq!(outcome(format!("{COMBINED}\r\n")), outcome(COMBINED));
    assert!(failure(format!("{COMBINED}\n\n")).contains("the end of the line"));
}

#[test]
fn an_unterminated_quote_is_a_failure_that_says_where() {
    let cut = COMBINED.strip_suffix('"').unwrap();
    let began = cut.rfind('"').unwrap();
    let expected = format!("expected a quote that ends what began here at byte {began}");
    assert!(failure(cut).ends_with(&expected), "{}", failure(cut));
    // A backslash takes the last quote with it.
    assert!(failure(format!(r#"{cut}\""#)).ends_with(&expected));
    assert!(failure(format!(r"{cut}\")).ends_with(&expected));
}

#[test]
fn every_part_is_checked() {
    let replaced = |from: &str, to: &str| failure(COMBINED.replacen(from, to, 1));
    for (from, to, expected) in [
        ("203.0.113.9 ", " ", "a remote address at byte 0"),
        (" ann [", " [", "a time in brackets"),
        ("] ", " ", "`]` behind the time"),
        ("17/May", "31/Jun", "a time such as"),
        ("17/May/2015", "29/Feb/2015", "a time such as"),
        ("17/May/2015", "29/Feb/1900", "a time such as"),
        ("17/May", "17-May", "a time such as"),
        ("10:05:03", "24:05:03", "a time such as"),
        ("+0200", "*0200", "a time such as"),
        ("GET /a?b=c HTTP/1.1", "-", "a request such as"),
        ("GET /a?b=c HTTP/1.1", "GET /a?b=c", "a request such as"),
        ("GET /a?b=c", "get /a?b=c", "a request such as"),
        ("\"GET", "GET", "the request in quotes"),
        (" 200 ", " 20 ", "a status of three digits"),
        (" 200 ", " 2x0 ", "a status of three digits"),
        (" 1234 ", " 1.5 ", "a number of bytes"),
        (" 1234 ", "  ", "a number of bytes"),
        (" 1234 ", " 012 ", "a number of bytes"),
        ("\"http", "http", "the referer in quotes"),
        ("\"curl/8.5.0\"", "curl", "the user agent in quotes"),
        ("8.5.0\"", "8.5.0\" 7", "the end of the line"),
    ] {
        let text = replaced(from, to);
        assert!(text.contains(expected), "{from} -> {to}: {text}");
    }
}

#[test]
fn every_cut_of_a_line_is_a_failure_but_the_common_one() {
    let common = COMBINED.find(" \"http").unwrap();
    for len in 0..COMBINED.len() {
        let is_number_cut = (common - 3..common).contains(&len); // 1, 12, 123 bytes are numbers too
        assert_eq!(outcome(&COMBINED[..len]).text().is_some(), len == common || is_number_cut, "cut at {len}");
    }
}

#[test]
fn what_is_no_text_is_a_failure() {
    assert!(failure(b"h\xff".to_vec()).contains("UTF-8 at byte 1"));
    let tombstone = testing::run::<Guest>("{}", &[TestRecord::tombstone()]).unwrap();
    assert!(matches!(&tombstone[0], Outcome::Failed { text, .. } if text.contains("no value")));
}
