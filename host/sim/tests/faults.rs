//! Calls to the disk that fail, one after the other: a slice of what `weir-sim faults` does.

use sim::faults::{Fault, Lasting, Row, Scenario, every_call};

fn assert_kept(row: &Row) {
    let broken: Vec<String> =
        row.failures.iter().take(3).map(|(case, violation)| format!("{violation} at {case}")).collect();
    assert!(broken.is_empty(), "{} broken promises: {broken:#?}", row.failures.len());
}

#[test]
fn whatever_call_fails_what_was_acknowledged_stays_and_the_store_serves_again() {
    for (at, scenario) in Scenario::EVERY.into_iter().enumerate() {
        // Of few calls, so that it does not take long; between them every scenario and every way to fail.
        let fault = Fault::EVERY[if scenario.is_offline() { 7 + at % 2 } else { at % Fault::EVERY.len() }];
        let mut left = 12;
        let row = every_call(scenario, fault, Lasting::EVERY[at % 3], 1, &mut || {
            left -= 1;
            left > 0
        });
        assert_kept(&row);
        assert!(row.runs > 0 || !scenario.has_calls(fault.kind), "{scenario}: {} was never hit", fault.name());
    }
}

#[test]
fn state_that_could_not_be_applied_is_applied_soon_though_commits_go_on() {
    let row = every_call(Scenario::Seal, Fault::EVERY[0], Lasting::Thrice, 1, &mut || true);
    assert_kept(&row);
    assert!(row.calls_failed > 0);
}
