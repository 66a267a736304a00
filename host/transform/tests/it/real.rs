//! The engine with plugins as they are built: what the text guests do not show is that real ones fit the limits.

use protocol::OnError;
use transform::{Pipeline, PluginHost, PluginHostOptions, TransformError, Worker};

use crate::common::{batch, deploy_with, run, stored_values};

const ACCESS_LOG: &[u8] = include_bytes!("../../../../plugins/access-log-json/access-log-json.wasm");
const JSON_FILTER: &[u8] = include_bytes!("../../../../plugins/json-filter/json-filter.wasm");

/// With a cache that outlives the test: an unoptimised compiler takes seconds for a real plugin.
fn host() -> PluginHost {
    let options = PluginHostOptions { instances_max: 8, ..PluginHostOptions::new(env!("CARGO_TARGET_TMPDIR")) };
    PluginHost::new(&options).unwrap()
}

#[test]
fn an_access_log_goes_through_two_plugins() {
    let host = host();
    let parse = deploy_with(&host, ACCESS_LOG, |spec| spec.limits.deadline_ms = 1_000).unwrap();
    let filter = deploy_with(&host, JSON_FILTER, |spec| {
        spec.limits.deadline_ms = 1_000;
        spec.config = r#"{"pointer":"/status","op":">=","value":400}"#.into();
    })
    .unwrap();
    let lines: [&[u8]; 4] = [
        br#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 203 "-" "curl""#,
        br#"1.2.3.4 - - [17/May/2015:10:05:04 +0000] "GET /missing HTTP/1.1" 404 0 "-" "curl""#,
        br#"1.2.3.4 - - [17/May/2015:10:05:05 +0000] "GET /unterminated"#,
        br#"1.2.3.4 - - [17/May/2015:10:05:06 +0000] "GET /broken HTTP/1.1" 500 0 "-" "curl""#,
    ];
    let output = run(&mut Worker::new(&host), &Pipeline::new(vec![parse, filter]), &batch(&lines)).unwrap();
    let stored = stored_values(&output);
    assert_eq!(stored.len(), 2);
    assert!(stored[0].contains(r#""path":"/missing""#) && stored[1].contains(r#""status":500"#), "{stored:?}");
    assert_eq!((output.books.kept, output.books.dropped, output.books.dead_lettered), (2, 1, 1));
    assert_eq!(output.dead_letters[0].record.value.as_deref(), Some(lines[2]));
}

#[test]
fn a_configuration_that_a_plugin_refuses_is_refused_in_its_words() {
    let refused = deploy_with(&host(), JSON_FILTER, |spec| {
        spec.on_error = OnError::Drop;
        spec.config = r#"{"pointer":"/status","opp":">="}"#.into();
    });
    let TransformError::ConfigRefused { text } = refused.unwrap_err() else { panic!("not for its configuration") };
    assert!(text.contains("opp"), "{text}");
}
