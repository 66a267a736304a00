//! Each kind of function, through the public face and the ABI's bytes.

use guest_sdk::{
    Failure, NewRecord, NewValue, Record, Records, Verdict, guest,
    testing::{self, Outcome, TestRecord},
};

fn records(values: &[&str]) -> Vec<TestRecord> {
    values.iter().map(|&value| value.into()).collect()
}

fn value<'a>(record: &Record<'a>) -> &'a [u8] {
    record.value().unwrap_or_default()
}

fn failed(text: &str) -> Outcome {
    Outcome::Failed { code: 7, text: text.to_owned() }
}

mod filter {
    use super::*;

    fn keep(record: &Record<'_>) -> Result<bool, Failure> {
        match value(record) {
            b"?" => Err(Failure::new(7, format!("record {} is unsure", record.offset()))),
            value => Ok(value == b"yes"),
        }
    }
    guest! { filter: keep }

    #[test]
    fn keeps_drops_and_fails() {
        let outcomes = testing::run::<Guest>("{}", &records(&["yes", "no", "?", "yes", "?"])).unwrap();
        let unsure = |at| failed(&format!("record {at} is unsure"));
        assert_eq!(outcomes, [Outcome::Kept, Outcome::Dropped, unsure(2), Outcome::Kept, unsure(4)]);
    }

    #[test]
    fn batches_of_any_size_are_decided_record_by_record() {
        for count in [0, 1, 7, 8, 9, 31, 32, 33, 100] {
            let values: Vec<&str> = (0..count).map(|at| if at % 3 == 0 { "yes" } else { "no" }).collect();
            let outcomes = testing::run::<Guest>("{}", &records(&values)).unwrap();
            let expected = |value: &&str| if *value == "yes" { Outcome::Kept } else { Outcome::Dropped };
            assert_eq!(outcomes, values.iter().map(expected).collect::<Vec<_>>());
        }
        let all = testing::run::<Guest>("{}", &records(&["yes"; 10])).unwrap();
        assert_eq!(all, vec![Outcome::Kept; 10]);
        let none = testing::run::<Guest>("{}", &records(&["no"; 10])).unwrap();
        assert_eq!(none, vec![Outcome::Dropped; 10]);
    }

    #[test]
    fn a_configuration_is_refused_where_there_is_none() {
        assert!(testing::run::<Guest>(r#"{"a":1}"#, &[]).unwrap_err().contains("`a`"));
    }
}

mod map {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Config {
        suffix: String,
    }

    fn append(config: &Config, record: &Record<'_>, out: &mut NewValue<'_>) -> Result<(), Failure> {
        out.push(value(record));
        out.push_str(&config.suffix);
        if record.value().is_none() { Err(Failure::new(7, "no value")) } else { Ok(()) }
    }
    guest! { map: append, config: Config, schema: r#"{"type":"object","required":["suffix"]}"# }

    #[test]
    fn every_value_is_what_was_written() {
        let input = [records(&["a", ""]), vec![TestRecord::tombstone()], records(&["c"])].concat();
        let outcomes = testing::run::<Guest>(r#"{"suffix":"!"}"#, &input).unwrap();
        let expected = [Outcome::value("a!"), Outcome::value("!"), failed("no value"), Outcome::value("c!")];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let refused = testing::run::<Guest>(r#"{"suffix":"!","prefix":"?"}"#, &[]).unwrap_err();
        assert_eq!(refused, "unknown field `prefix`");
    }

    #[test]
    fn it_describes_itself() {
        let description = testing::describe::<Guest>();
        assert_eq!(description["config"]["required"][0], "suffix");
        assert_eq!(description["version"], env!("CARGO_PKG_VERSION"));
    }
}

mod filter_map {
    use super::*;

    fn decide(record: &Record<'_>, out: &mut NewValue<'_>) -> Result<Verdict, Failure> {
        out.push(b"written");
        match value(record) {
            b"keep" => Ok(Verdict::Keep),
            b"replace" => Ok(Verdict::Replace),
            b"empty" => {
                out.clear();
                Ok(Verdict::Replace)
            }
            b"null" => Ok(Verdict::Null),
            b"drop" => Ok(Verdict::Drop),
            _ => Err(Failure::new(7, "what?")),
        }
    }
    guest! { filter_map: decide }

    #[test]
    fn every_verdict_is_followed() {
        let input = records(&["drop", "replace", "keep", "?", "null", "empty", "replace", "keep"]);
        let written = || Outcome::value("written");
        let expected = [
            Outcome::Dropped,
            written(),
            Outcome::Kept,
            failed("what?"),
            Outcome::Replaced(None),
            Outcome::value(""),
            written(),
            Outcome::Kept,
        ];
        assert_eq!(testing::run::<Guest>("{}", &input).unwrap(), expected);
    }

    #[test]
    fn what_changes_nothing_is_said_without_patches() {
        assert_eq!(testing::run::<Guest>("{}", &records(&["keep"; 3])).unwrap(), vec![Outcome::Kept; 3]);
        let mixed = testing::run::<Guest>("{}", &records(&["keep", "drop"])).unwrap();
        assert_eq!(mixed, [Outcome::Kept, Outcome::Dropped]);
    }
}

mod flat_map {
    use guest_sdk::{Header, Headers};

    use super::*;

    fn expand(record: &Record<'_>, out: &mut Records<'_>) -> Result<(), Failure> {
        for word in value(record).split(|&byte| byte == b' ') {
            match word {
                b"keep" => out.keep(),
                b"route" => out.route(2),
                b"made" => out.push(&NewRecord {
                    target: 1,
                    key: Some(b"new"),
                    value: None,
                    headers: Headers::NONE,
                    more_headers: &[Header { name: b"made", value: None }],
                    timestamp: record.timestamp() + 1,
                }),
                b"tagged" => {
                    let more_headers = &[Header { name: b"tag", value: Some(b"1") }];
                    out.push(&NewRecord { more_headers, ..NewRecord::from(record) });
                }
                b"fail" => return Err(Failure::new(7, "asked for")),
                word => out.value(word),
            }
        }
        Ok(())
    }
    guest! { flat_map: expand }

    #[test]
    fn what_is_pushed_takes_the_records_place() {
        let record = |text: &str| TestRecord::from(text).key("k").header("h", "v").timestamp(testing::TIMESTAMP + 70);
        let words = "keep route x made tagged";
        let input = [record(words), record("keep keep fail"), record("fail"), record("y")];
        let made = TestRecord {
            key: Some(b"new".to_vec()),
            value: None,
            headers: vec![("made".to_owned(), None)],
            timestamp: testing::TIMESTAMP + 71,
        };
        let expected = [
            Outcome::Records(vec![
                (0, record(words)),
                (2, record(words)),
                (0, record("x")),
                (1, made),
                (0, record(words).header("tag", "1")),
            ]),
            failed("asked for"),
            failed("asked for"),
            Outcome::Records(vec![(0, record("y"))]),
        ];
        assert_eq!(testing::run::<Guest>("{}", &input).unwrap(), expected);
    }
}

mod views {
    use super::*;

    fn check(record: &Record<'_>) -> bool {
        let names: Vec<&[u8]> = record.headers().iter().map(|header| header.name).collect();
        record.topic() == testing::TOPIC
            && record.partition() == 0
            && record.offset() == i64::from(record.index())
            && record.timestamp() == testing::TIMESTAMP - 5
            && record.key() == Some(b"key")
            && names == [b"a", b"b"]
            && record.header("b") == Some(b"2")
            && record.header("c").is_none()
    }
    guest! { filter: check }

    #[test]
    fn a_record_shows_what_it_has() {
        let record =
            TestRecord::from("x").key("key").header("a", "1").header("b", "2").timestamp(testing::TIMESTAMP - 5);
        assert_eq!(testing::run::<Guest>("{}", &vec![record; 3]).unwrap(), vec![Outcome::Kept; 3]);
    }
}
