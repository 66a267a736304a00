//! What records carry: who sent them, as which, and a checksum over it.
//!
//! ```text
//! {"keep":true,"sum":"8f3a...","id":"3.1.42.xxxxxxxx"}     kept;  false: dropped;  without the last brace: it fails
//! ```

use std::hash::{DefaultHasher, Hasher as _};

use sim::checker::history::{Fate, RecordId};

/// The bytes of a record.
pub(crate) fn encode(record: RecordId, fate: Fate, padding: usize) -> String {
    let RecordId { producer, partition, number } = record;
    let id = format!("{producer}.{partition}.{number}.{}", "x".repeat(padding));
    let keep = fate != Fate::Dropped;
    let end = if matches!(fate, Fate::DeadLettered | Fate::Rejected) { "" } else { "}" };
    format!("{{\"keep\":{keep},\"sum\":\"{:016x}\",\"id\":\"{id}\"{end}", sum(keep, end, &id))
}

/// Which record it is; `None` when it is none of ours, or not as it was.
pub(crate) fn decode(value: &[u8]) -> Option<RecordId> {
    let text = std::str::from_utf8(value).ok()?;
    let (keep, rest) = text.strip_prefix("{\"keep\":")?.split_once(",\"sum\":\"")?;
    let (said, rest) = rest.split_once("\",\"id\":\"")?;
    let (id, end) = rest.split_once('"')?;
    let keep = keep.parse().ok()?;
    if u64::from_str_radix(said, 16).ok()? != sum(keep, end, id) {
        return None;
    }
    let mut parts = id.splitn(4, '.');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (producer, partition, number) = (number()?, number()?, number()?);
    Some(RecordId { producer: u32::try_from(producer).ok()?, partition: u32::try_from(partition).ok()?, number })
}

fn sum(keep: bool, end: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(u8::from(keep));
    hasher.write(end.as_bytes());
    hasher.write(id.as_bytes());
    hasher.finish()
}

#[test]
fn a_record_names_itself_and_shows_damage() {
    let record = RecordId { producer: 3, partition: 1, number: 42 };
    for fate in [Fate::Kept, Fate::Dropped, Fate::DeadLettered] {
        let text = encode(record, fate, 20);
        assert_eq!(decode(text.as_bytes()), Some(record));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(decode(&bytes), None, "byte {at} of {text}");
        }
    }
}
