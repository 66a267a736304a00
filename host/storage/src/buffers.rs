//! Buffers that reads from disk share: large ones are dear to make anew, page by page, for every read.
//!
//! Owns a few buffers of a bounded size. A buffer comes back when the last `Bytes` of it is dropped; what is larger or one
//! too many is freed.
//!
//! Start at [`Buffers::take`].

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::sync::Mutex;

/// Smaller reads are served well by the allocator.
const POOLED_BYTES_MIN: usize = 256 << 10;

/// Larger ones are rare, and would stay in memory for nothing.
const POOLED_BYTES_MAX: usize = 1 << 20;

/// Kept at a time: what two readers that keep up with the disk have in their hands.
const POOLED_MAX: usize = 4;

/// The buffers of a store.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer of so many bytes, whatever is in them.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        if !(POOLED_BYTES_MIN..=POOLED_BYTES_MAX).contains(&bytes) {
            return Buffer { bytes: vec![0; bytes], len: bytes, pool: Weak::new() };
        }
        let free = self.free.lock().pop();
        let buffer = free.unwrap_or_else(|| vec![0; POOLED_BYTES_MAX]);
        Buffer { bytes: buffer, len: bytes, pool: Arc::downgrade(self) }
    }
}

/// A buffer that goes back to where it came from.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    pool: Weak<Buffers>,
}

impl Buffer {
    /// Hands it to readers.
    pub(crate) fn freeze(self) -> Bytes {
        if self.pool.strong_count() == 0 {
            let mut buffer = self;
            return std::mem::take(&mut buffer.bytes).into();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut free = pool.free.lock();
        if free.len() < POOLED_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_done() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.take(300_000);
        buffer.as_mut().fill(7);
        let bytes = buffer.freeze();
        let part = bytes.slice(1..3);
        assert_eq!((bytes.len(), &part[..]), (300_000, &[7, 7][..]));
        drop(bytes);
        assert_eq!(buffers.free.lock().len(), 0);
        drop(part);
        assert_eq!(buffers.free.lock().len(), 1);
        assert_eq!(buffers.take(POOLED_BYTES_MAX).as_ref().len(), POOLED_BYTES_MAX);
        assert_eq!(buffers.free.lock().len(), 1);
    }

    #[test]
    fn small_and_huge_ones_are_not_kept() {
        let buffers = Arc::new(Buffers::default());
        for bytes in [1, POOLED_BYTES_MAX + 1] {
            assert_eq!(buffers.take(bytes).freeze().len(), bytes);
        }
        assert_eq!(buffers.free.lock().len(), 0);
    }
}
