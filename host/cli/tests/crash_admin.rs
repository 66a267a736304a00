//! `kill -9` in the middle of an operator's command: the broker comes back with everything sound, and the command, which
//! goes on or is repeated, does what it would have done.

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Broker, Place, Ran, Running, arg};

/// Rounds of `WEIR_CRASH_ROUNDS`, else this many; the kill falls elsewhere in each.
const ROUNDS: u64 = 2;

/// The command did not reach the broker before it was gone, or was not answered in time.
const NO_BROKER: i32 = 3;

/// How often a command is repeated on a machine that is too busy to answer it in time.
const TRIES_MAX: usize = 5;

/// Records that are there before anything else.
const RECORDS: usize = 4_000;

fn rounds() -> u64 {
    std::env::var("WEIR_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

/// A broker whose topic `t` holds some records.
fn broker_with_records(place: &Place) -> Broker {
    let broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    let lines: String = (0..RECORDS).map(|number| format!("record {number} {}\n", "x".repeat(200))).collect();
    assert_eq!(place.run_with(&["produce", "t"], lines).exit, 0);
    broker
}

/// Kills the broker while a command runs, so long after its start, and starts the broker again. How the command ended.
fn kill_during(place: &Place, broker: Broker, args: &[&str], after: Duration) -> (Ran, Broker) {
    let address = broker.quic.to_string();
    let command = Running::start(place, args);
    std::thread::sleep(after);
    broker.kill();
    let broker = place.serve_with(&["--quic", &address]);
    (command.finish(), broker)
}

/// A command that a kill fell into did what it was to do, or does when it is repeated.
fn is_done(place: &Place, ran: Ran, args: &[&str], round: u64) {
    let mut ran = ran;
    for _ in 0..TRIES_MAX {
        if ran.exit == 0 {
            return;
        }
        assert_eq!(ran.exit, NO_BROKER, "round {round}: {ran:?}");
        ran = place.run(args);
    }
    panic!("round {round}: {ran:?}");
}

/// After so many rounds, kills fell all over a command that takes about this long.
fn moment(round: u64, command_ms: u64) -> Duration {
    Duration::from_micros(round * 613 * 1_000 % (command_ms * 1_000) + round * 37)
}

/// What is there can be read, and nothing of it is damaged.
fn is_sound(place: &Place, broker: Broker, round: u64) {
    let count = RECORDS.to_string();
    assert_eq!(place.ok(&["consume", "t", "--count", &count]).lines().len(), RECORDS, "round {round}");
    assert_eq!(broker.terminate(), 0, "round {round}");
    place.ok(&["verify"]);
}

#[test]
fn a_backup_that_was_broken_off_is_made_by_the_next_one() {
    for round in 0..rounds() {
        let place = Place::new();
        let broker = broker_with_records(&place);
        let backup = ["backup", "--to", "backup"];
        let (ran, broker) = kill_during(&place, broker, &backup, moment(round, 250));
        // Made, begun and broken off, or never begun: it says which, and does not hang.
        assert!([0, 1, NO_BROKER, 6].contains(&ran.exit), "round {round}: {ran:?}");
        place.ok(&backup);
        is_sound(&place, broker, round);
        place.ok(&["restore", "backup", "--to", "restored"]);
        place.ok(&["verify", arg(&place.path("restored"))]);
    }
}

#[test]
fn an_import_goes_on_and_stores_each_record_once() {
    for round in 0..rounds() {
        let place = Place::new();
        let broker = broker_with_records(&place);
        place.ok(&["export", "t", "--to", "files"]);
        place.ok(&["topic", "create", "copy"]);
        let import = ["import", "copy", "files", "--source-topic", "t"];
        let (ran, broker) = kill_during(&place, broker, &import, moment(round, 250));
        if ran.exit == NO_BROKER {
            place.ok(&import);
        } else {
            assert_eq!(ran.exit, 0, "round {round}: {ran:?}");
        }
        let original = place.ok(&["consume", "t", "--until-end"]);
        let copy = place.ok(&["consume", "copy", "--until-end"]);
        assert!(original.lines() == copy.lines(), "round {round}: the copy is another");
        let unique: BTreeSet<&str> = copy.lines().into_iter().collect();
        assert_eq!(unique.len(), RECORDS, "round {round}");
        is_sound(&place, broker, round);
    }
}

#[test]
fn an_upload_and_a_deployment_go_on_and_hold() {
    for round in 0..rounds() {
        let place = Place::new();
        let broker = broker_with_records(&place);
        let upload = ["plugin", "upload", "only", "builtin:contains"];
        let (ran, broker) = kill_during(&place, broker, &upload, moment(round, 400));
        is_done(&place, ran, &upload, round);
        assert!(place.ok(&["plugin", "list"]).stdout.contains("only"), "round {round}");

        let config = r#"{"contains":"keep"}"#;
        let deploy = ["transform", "deploy", "--topic", "t", "--plugin", "only", "--config", config];
        let (ran, broker) = kill_during(&place, broker, &deploy, moment(round, 150));
        is_done(&place, ran, &deploy, round);
        assert_eq!(place.run_with(&["produce", "t"], "keep this\nand not that\n").exit, 0, "round {round}");
        let last = place.ok(&["consume", "t", "--until-end"]);
        assert_eq!(last.lines()[RECORDS..], ["keep this"], "round {round}");
        is_sound(&place, broker, round);
    }
}
