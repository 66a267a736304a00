//! The JSON pointer scan against serde's own reading of the same text. Pure values.

use proptest::prelude::*;

use super::*;

/// Documents of every shape: names that need escapes, occur twice, look like indices.
fn document() -> impl Strategy<Value = serde_json::Value> {
    let name = prop_oneof!["[a-c]", "[0-2]", "~?/?", Just("\"\\\n".to_owned()), Just("é𝄞".to_owned()), ".{0,4}"];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        // Sixteenths: what `serde_json` reads without rounding.
        any::<i32>().prop_map(|number| serde_json::Value::from(f64::from(number) / 16.0)),
        ".{0,20}".prop_map(serde_json::Value::from),
        "[\"\\\\\u{0}-\u{1f}é𝄞]{0,9}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// All pointers into a document, as `serde_json` spells them.
fn places(document: &serde_json::Value, prefix: &str, to: &mut Vec<String>) {
    to.push(prefix.to_owned());
    match document {
        serde_json::Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, element)| places(element, &format!("{prefix}/{at}"), to));
        }
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{prefix}/{}", name.replace('~', "~0").replace('/', "~1")), to);
            }
        }
        _ => {}
    }
}

/// The same text with every character of its strings that may be escaped, escaped.
fn escaped(text: &str) -> String {
    let mut to = String::new();
    let mut is_inside = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escape = characters.next().unwrap();
                to.extend(['\\', escape]);
                to.extend(characters.by_ref().take(if escape == 'u' { 4 } else { 0 }));
            }
            '"' => {
                is_inside = !is_inside;
                to.push('"');
            }
            _ if is_inside => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    to.push_str(&format!("\\u{unit:04X}"));
                }
            }
            _ => to.push(character),
        }
    }
    to
}

fn agrees(text: &str, document: &serde_json::Value) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    all.extend(["/no/such".to_owned(), "/0/00".to_owned(), "/-".to_owned()]);
    let pointers: Vec<Pointer> = all.iter().map(|text| text.parse().unwrap()).collect();
    let mut found = vec![None; pointers.len()];
    find_all(text.as_bytes(), &pointers, |pointer, value| found[pointer] = Some(value)).unwrap();
    for ((place, pointer), found) in all.iter().zip(&pointers).zip(found) {
        let expected = document.pointer(place);
        assert_eq!(find(text.as_bytes(), pointer).unwrap(), found, "{place} in {text}");
        assert_eq!(find_first(text.as_bytes(), pointer).unwrap(), found, "{place} in {text}");
        let parsed = found.map(|value| serde_json::from_slice::<serde_json::Value>(value.raw()).unwrap());
        assert_eq!(parsed.as_ref(), expected, "{place} in {text}");
        if let (Some(found), Some(expected)) = (found, expected) {
            assert_eq!(&text.as_bytes()[found.range()], found.raw());
            assert_eq!(found.string().as_deref(), expected.as_str());
            assert_eq!(found.bool(), expected.as_bool());
            let number = expected.as_i64().map(Number::from).or_else(|| expected.as_f64().map(Number::from));
            assert_eq!(found.number(), number);
            let mut elements = Vec::new();
            found.elements(|element| elements.push(element.raw()));
            assert_eq!(elements.len(), expected.as_array().map_or(0, Vec::len));
        }
    }
}

proptest! {
    #[test]
    fn pointers_find_what_serde_json_finds(document in document()) {
        agrees(&document.to_string(), &document);
        agrees(&serde_json::to_string_pretty(&document).unwrap(), &document);
        agrees(&escaped(&document.to_string()), &document);
    }

    #[test]
    fn what_serde_json_refuses_is_refused(
        document in document(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = escaped(&document.to_string()).into_bytes();
        for (at, byte) in edits {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let cut = cut.index(text.len());
        for text in [&text[..], &text[..cut]] {
            let ours = find(text, &"/a/0".parse().unwrap());
            match serde_json::from_slice::<serde_json::Value>(text) {
                Ok(document) => {
                    let found = ours.unwrap().map(|value| serde_json::from_slice::<serde_json::Value>(value.raw()).unwrap());
                    prop_assert_eq!(found.as_ref(), document.pointer("/a/0"));
                }
                // An edit can make a number too large for a double, which `serde_json` alone refuses.
                Err(error) if error.to_string().starts_with("number out of range") => {}
                Err(error) => prop_assert!(ours.is_err(), "{error}: {}", String::from_utf8_lossy(text)),
            }
        }
    }

    #[test]
    fn arbitrary_text_is_taken_and_refused_alike(text in r#"[\[\]{},:"\\u0-9a-f.eE+\- tnul]{0,12}"#) {
        let ours = find(text.as_bytes(), &"".parse().unwrap()).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        if theirs.as_ref().err().is_none_or(|error| !error.to_string().starts_with("number out of range")) {
            prop_assert_eq!(ours, theirs.is_ok(), "{}", text);
        }
    }

    #[test]
    fn strings_are_written_as_json_reads_them(text in any::<String>()) {
        let mut json = Vec::new();
        push_str(&mut json, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }

    #[test]
    fn members_are_shown_in_order(document in document()) {
        let text = document.to_string();
        let mut shown = Vec::new();
        let is_object = members(text.as_bytes(), |name, value| {
            shown.push((name.string().unwrap().into_owned(), serde_json::from_slice(value.raw()).unwrap()));
        });
        prop_assert_eq!(is_object.unwrap(), document.is_object());
        let expected: Vec<(String, serde_json::Value)> =
            document.as_object().map(|members| members.clone().into_iter().collect()).unwrap_or_default();
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn a_name_that_occurs_twice_is_shown_twice_and_the_last_one_found() {
    let text = br#"{"a":1,"b":{"a":5},"a":2}"#;
    let pointer = "/a".parse().unwrap();
    let mut shown = Vec::new();
    find_all(text, std::slice::from_ref(&pointer), |_, value| shown.push(value.raw())).unwrap();
    assert_eq!(shown, [b"1", b"2"]);
    assert_eq!(find(text, &pointer).unwrap().unwrap().raw(), b"2");
    assert_eq!(find_first(text, &pointer).unwrap().unwrap().raw(), b"1");
}

#[test]
fn more_than_sixty_four_pointers_are_all_followed() {
    let text = format!("[{}]", (0..200).map(|at| at.to_string()).collect::<Vec<_>>().join(","));
    let pointers: Vec<Pointer> = (0..200).map(|at| format!("/{at}").parse().unwrap()).collect();
    let mut shown = Vec::new();
    find_all(text.as_bytes(), &pointers, |pointer, value| shown.push((pointer, value.raw()))).unwrap();
    assert_eq!(shown.len(), 200);
    assert!(shown.iter().all(|(pointer, raw)| pointer.to_string().as_bytes() == *raw));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
    for depth in [1, 127, 128, 100_000] {
        let taken = find(&nested(depth), &"/0".parse().unwrap()).is_ok();
        assert_eq!(taken, serde_json::from_slice::<serde_json::Value>(&nested(depth)).is_ok(), "{depth}");
    }
}

#[test]
fn errors_say_where() {
    let error = |text: &[u8]| find(text, &"/a".parse().unwrap()).unwrap_err().to_string();
    assert_eq!(error(b"{\"a\":tru}"), "not JSON: expected a value at byte 5");
    assert_eq!(error(b"{\"a\":1"), "not JSON: it ends inside a value, at byte 6");
    assert_eq!(error(b"{} x"), "not JSON: there is more behind its end, at byte 3");
    assert_eq!(error(b"\"\xff\""), "not JSON: no UTF-8 at byte 1");
}

#[test]
fn pointers_are_read_as_rfc_6901_says() {
    let text = br#"{"foo":["bar","baz"],"":0,"a/b":1,"m~n":8,"k\"l":6," ":7,"~1":9}"#;
    for (pointer, raw) in
        [("/foo/0", "\"bar\""), ("/", "0"), ("/a~1b", "1"), ("/m~0n", "8"), ("/k\"l", "6"), ("/ ", "7"), ("/~01", "9")]
    {
        let parsed: Pointer = pointer.parse().unwrap();
        assert_eq!(find(text, &parsed).unwrap().unwrap().raw(), raw.as_bytes(), "{pointer}");
        assert_eq!(parsed.to_string(), pointer);
    }
    assert_eq!(find(text, &"/foo/00".parse().unwrap()), Ok(None));
    for wrong in ["foo", "/a~", "/a~2"] {
        assert!(wrong.parse::<Pointer>().is_err(), "{wrong}");
    }
}
