//! Maps by partition id, which are looked up several times for every append.
//!
//! Owns the hash: ids are handed out one after the other by the broker, so a multiplication spreads them well enough,
//! and nobody outside can choose them to collide.
//!
//! Start at [`IdMap`].

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use protocol::PartitionId;

/// A map by partition id; in no order.
pub(crate) type IdMap<V> = HashMap<PartitionId, V, BuildHasherDefault<IdHasher>>;

/// Spreads a 32-bit id over the 64 bits that a map looks at.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
