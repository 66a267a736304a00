//! Keeps one of n records, by the hash of their key.
//!
//! ```json
//! {"n": 100}
//! ```
//!
//! - All records of a key are kept or all are dropped, on every partition and topic alike, so that what is kept is whole: every
//!   request of one session in a hundred, not one request of each.
//! - The hash is FNV-1a of the key with 64 bits, mixed once more; a key is kept where it is a multiple of n. It has nothing to do
//!   with the hash that picks a key's partition, or partitions would be kept rather than keys.
//! - A record without a key is kept where its offset is a multiple of n.

use guest_sdk::{Record, guest};
use serde::Deserialize;

guest! {
    filter: keep,
    config: Config,
    schema: r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["n"],
        "properties": {"n": {"type": "integer", "minimum": 1, "description": "keep one of so many"}}
    }"#,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    n: std::num::NonZeroU32,
}

fn keep(config: &Config, record: &Record<'_>) -> bool {
    let place = record.key().map_or_else(|| record.offset() as u64, hash);
    place.is_multiple_of(u64::from(config.n.get()))
}

/// FNV-1a, then the finalizer of MurmurHash3, because the low bits of FNV-1a alone depend on the low bits of the key only.
fn hash(key: &[u8]) -> u64 {
    let fnv = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use guest_sdk::testing::{self, Outcome, TestRecord};

    use super::*;

    fn kept(config: &str, records: &[TestRecord]) -> Vec<usize> {
        let outcomes = testing::run::<Guest>(config, records).unwrap();
        outcomes.iter().enumerate().filter(|(_, outcome)| **outcome == Outcome::Kept).map(|(at, _)| at).collect()
    }

    #[test]
    fn about_one_of_n_keys_is_kept_for_any_n() {
        let records: Vec<TestRecord> = (0..20_000).map(|at| TestRecord::from("v").key(format!("user-{at}"))).collect();
        for n in [2, 3, 4, 10, 16, 100] {
            let (count, expected) = (kept(&format!(r#"{{"n":{n}}}"#), &records).len(), 20_000 / n);
            assert!(count.abs_diff(expected) < expected / 4, "{count} of 20,000 are not one of {n}");
        }
    }

    #[test]
    fn records_of_one_key_share_its_fate() {
        let records: Vec<TestRecord> = (0..100).map(|at| TestRecord::from("v").key(format!("{}", at % 10))).collect();
        let kept = kept(r#"{"n":3}"#, &records);
        assert!(!kept.is_empty() && kept.len() < 100);
        assert!(kept.iter().all(|at| kept.contains(&(at % 10))));
        assert_eq!(kept.len() % 10, 0);
    }

    #[test]
    fn records_without_a_key_are_taken_by_their_offset() {
        assert_eq!(kept(r#"{"n":4}"#, &vec![TestRecord::from("v"); 10]), [0, 4, 8]);
    }

    #[test]
    fn one_of_one_is_all() {
        assert_eq!(kept(r#"{"n":1}"#, &[TestRecord::from("v"), TestRecord::tombstone().key("k")]), [0, 1]);
    }

    #[test]
    fn the_hash_stays_what_it_is() {
        // The inner part is FNV-1a's published value for `foobar`, before mixing: 0x85944171f73967e8.
        let mixed = |fnv: u64| {
            let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            mixed ^ (mixed >> 33)
        };
        assert_eq!(hash(b"foobar"), mixed(0x8594_4171_f739_67e8));
    }

    #[test]
    fn configurations_that_mean_nothing_are_refused() {
        for config in ["{}", r#"{"n":0}"#, r#"{"n":-1}"#, r#"{"n":0.5}"#, r#"{"n":2,"by":"key"}"#] {
            assert!(testing::run::<Guest>(config, &[]).is_err(), "{config}");
        }
        assert_eq!(testing::describe::<Guest>()["config"]["required"][0], "n");
    }
}
