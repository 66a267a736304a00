//! Records as a simulation makes them and reads them back.
//!
//! ```text
//! value   version of the topic's pipeline u32, then bytes like no others
//! ```
//!
//! Start at [`records_of`].

use bytes::{BufMut, Bytes};
use protocol::{RecordBatch, limits::DECOMPRESSED_BYTES_MAX, records};

use crate::rng::Rng;

/// Keys of a topic that has keys.
pub const KEYS: usize = 6;

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
}

/// A key.
#[must_use]
pub fn key(number: usize) -> Bytes {
    format!("key {number}").into()
}

/// A value of some length, at least.
#[must_use]
pub fn value(version: u32, bytes: usize, rng: &mut Rng) -> Bytes {
    let mut value = Vec::with_capacity(bytes + 4);
    value.put_u32(version);
    value.extend(rng.bytes(bytes));
    value.into()
}

/// All records of a batch; `None` where it is not one.
#[must_use]
pub fn records_of(bytes: &Bytes) -> Option<Vec<Placed>> {
    let batch = RecordBatch::decode(bytes.clone()).ok()?;
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).ok()?;
    let base = batch.header().base_offset.0;
    let record = |record: protocol::RecordView<'_>| Placed {
        offset: base + u64::from(record.offset_delta),
        key: record.key.map(Bytes::copy_from_slice),
        value: record.value.map(|value| section.slice_ref(value)),
    };
    records(&section).map(|found| Some(record(found.ok()?))).collect()
}

/// The version of its topic's pipeline that a batch came through; `None` where it has no value that says so.
#[must_use]
pub fn version_of(bytes: &Bytes) -> Option<u32> {
    let batch = RecordBatch::decode(bytes.clone()).ok()?;
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).ok()?;
    let first = records(&section).map_while(Result::ok).find_map(|record| record.value)?;
    Some(u32::from_be_bytes(*first.first_chunk()?))
}
