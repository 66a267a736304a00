//! Snappy as Kafka has it: blocks in xerial's framing, or one bare block.
//!
//! ```text
//! 0x82 "SNAPPY" 0x00 | i32 version 1 | i32 compatible 1 | per block: i32 length | snappy block
//! ```
//! Integers are big endian. Each block begins with its uncompressed length, which is checked against the budget before
//! room is made for it.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use super::compression::Output;
use crate::BatchError;

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const VERSIONS: &[u8; 8] = &[0, 0, 0, 1, 0, 0, 0, 1];

/// Uncompressed bytes of one block: what xerial's stream takes by default.
const BLOCK_BYTES: usize = 32 << 10;

pub(super) fn compress(section: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in section.chunks(BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let (length, room) = out.split_at_mut(start).1.split_at_mut(4);
        let bytes = encoder.compress(block, room).expect("room for the worst case was made");
        length.copy_from_slice(&(bytes as u32).to_be_bytes());
        out.truncate(start + 4 + bytes);
    }
}

pub(super) fn decompress(section: &[u8], out: &mut Output) -> Result<(), BatchError> {
    let Some(framed) = section.strip_prefix(MAGIC) else {
        return decompress_block(section, out);
    };
    // The versions say nothing that matters; old writers put other numbers there.
    let mut blocks = framed.get(VERSIONS.len()..).ok_or_else(|| out.damaged("its framing is cut off"))?;
    while !blocks.is_empty() {
        let (length, rest) = blocks.split_first_chunk().ok_or_else(|| out.damaged("its framing is cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(|| out.damaged("a block is cut off"))?;
        decompress_block(block, out)?;
        blocks = rest;
    }
    Ok(())
}

fn decompress_block(block: &[u8], out: &mut Output) -> Result<(), BatchError> {
    let bytes = snap::raw::decompress_len(block).map_err(|error| out.damaged(error))?;
    // Three bytes of a block give at most 64, so a longer promise is a lie, and room for it would be wasted.
    if bytes > block.len().saturating_mul(64) {
        return Err(out.damaged("a block promises more than it can hold"));
    }
    let room = out.append_zeroed(bytes)?;
    let result = snap::raw::Decoder::new().decompress(block, room);
    result.map(|_| ()).map_err(|error| out.damaged(error))
}
