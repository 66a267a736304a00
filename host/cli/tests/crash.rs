//! `kill -9` in the middle of a produce: the broker comes back, the producer carries on, and every acknowledged record
//! is there once, in order. Real processes, real files.

mod common;

use common::{Place, Running};
use serde_json::Value;

/// Rounds of `WEIR_CRASH_ROUNDS`, else this many.
const ROUNDS: u32 = 20;

/// Lines that are fed while a broker lives, so that each kill falls into a stream of batches.
const LINES_PER_LIFE: u64 = 400;

/// Times the broker is killed in one round.
const KILLS: u64 = 2;

#[test]
fn every_acknowledged_record_is_there_once_and_in_order() {
    let rounds = std::env::var("WEIR_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        one_round(round);
    }
}

fn one_round(round: u32) {
    let place = Place::new();
    let mut broker = place.serve();
    let address = broker.quic.to_string();
    place.ok(&["topic", "create", "t"]);
    let mut producer = Running::start(&place, &["produce", "t", "--broker", &address, "--json"]);
    // Once a record came back, the producer is under way: from now on a broker that is gone is for it to bear.
    producer = producer.write("record-0");
    place.ok(&["consume", "t", "--count", "1"]);
    let mut sent = 1;
    for life in 0..=KILLS {
        // The kill falls at another place of the stream in each round: after none of a life's lines, or nearly all.
        let before_kill = (u64::from(round) * 61 + life * 23) % LINES_PER_LIFE;
        for line in 0..LINES_PER_LIFE {
            if life < KILLS && line == before_kill {
                broker.kill();
                broker = place.serve_with(&["--quic", &address]);
            }
            producer = producer.write(&format!("record-{sent}"));
            sent += 1;
        }
    }
    let produced = producer.finish();
    assert_eq!(produced.exit, 0, "round {round}: {produced:?}");
    let summary = produced.summary();
    assert_eq!((&summary["acked"], &summary["failed"]), (&Value::from(sent), &Value::from(0)), "round {round}");

    // A last kill: what was acknowledged does not live in memory.
    broker.kill();
    let _broker = place.serve_with(&["--quic", &address]);
    let consumed = place.ok(&["consume", "t", "--until-end"]);
    let expected: Vec<String> = (0..sent).map(|number| format!("record-{number}")).collect();
    assert_eq!(consumed.lines(), expected, "round {round}");
}
