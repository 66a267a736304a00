//! The codecs of a records section, and decompression that stops at a budget.
//!
//! Owns the choice of levels and frames: what Kafka's own clients write, so that they can read ours. Output grows as
//! bytes come out of the codec, never by what the input claims beyond the budget.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use std::{
    fmt,
    io::{Read, Write},
    str::FromStr,
};

use zstd::zstd_safe;

use super::snappy;
use crate::BatchError;

/// How the records section of a batch is compressed. The numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// Deflate with a gzip frame; several members are read as one.
    Gzip = 1,
    /// Snappy in xerial's framing, as Kafka's Java client writes it; bare blocks are read too.
    Snappy = 2,
    /// LZ4 in its frame format, blocks independent.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// A word that names no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of `none`, `gzip`, `snappy`, `lz4`, `zstd`")]
pub struct CompressionUnknown(String);

impl FromStr for Compression {
    type Err = CompressionUnknown;
    fn from_str(word: &str) -> Result<Self, CompressionUnknown> {
        let named = Compression::ALL.iter().find(|compression| compression.as_str() == word);
        named.copied().ok_or_else(|| CompressionUnknown(word.to_owned()))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Level of gzip: zlib's own default, as Kafka's.
const GZIP_LEVEL: u32 = 6;
/// Level of zstd: its own default, as Kafka's.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// All codecs, by number.
    pub const ALL: &'static [Compression] =
        &[Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec of a number.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Compression> {
        Some(match number {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return None,
        })
    }

    /// Its number in a batch's attributes.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The word used in the CLI and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Appends the compressed section to `out`.
    pub(super) fn compress(self, section: &[u8], out: &mut Vec<u8>) {
        const MEMORY: &str = "compressing from memory to memory cannot fail";
        match self {
            Compression::None => out.extend_from_slice(section),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(section).and_then(|()| encoder.try_finish()).expect(MEMORY);
            }
            Compression::Snappy => snappy::compress(section, out),
            Compression::Lz4 => {
                // Kafka's Java client refuses blocks that depend on each other; its own are of 64 KiB.
                let frame = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
                encoder.write_all(section).expect(MEMORY);
                encoder.finish().expect(MEMORY);
            }
            Compression::Zstd => {
                let mut encoder = zstd_safe::CCtx::create();
                encoder.set_parameter(zstd_safe::CParameter::CompressionLevel(ZSTD_LEVEL)).expect(MEMORY);
                let start = out.len();
                out.reserve(zstd_safe::compress_bound(section.len()));
                let mut tail = zstd_safe::OutBuffer::around_pos(out, start);
                let mut input = zstd_safe::InBuffer::around(section);
                while encoder
                    .compress_stream2(&mut tail, &mut input, zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_end)
                    .expect(MEMORY)
                    > 0
                {}
            }
        }
    }

    /// The uncompressed section, if it is at most `budget` bytes.
    pub(super) fn decompress(self, section: &[u8], budget: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Output { bytes: Vec::new(), compression: self, budget };
        out.expect_bytes(section.len().saturating_mul(2));
        match self {
            Compression::None => out.append(section)?,
            Compression::Gzip => out.fill_from(flate2::bufread::MultiGzDecoder::new(section))?,
            Compression::Snappy => snappy::decompress(section, &mut out)?,
            Compression::Lz4 => out.fill_from(lz4_flex::frame::FrameDecoder::new(section))?,
            Compression::Zstd => decompress_zstd(section, &mut out)?,
        }
        Ok(out.bytes)
    }
}

/// Bytes that came out of a codec, never more than the budget.
pub(super) struct Output {
    bytes: Vec<u8>,
    compression: Compression,
    budget: usize,
}

impl Output {
    /// Least room that is made, and most that is cleared, at a time.
    const STEP: usize = 64 << 10;

    /// Makes room for what is likely to come.
    fn expect_bytes(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes.min(self.budget));
    }

    /// Makes room for more bytes, doubling up to the budget; an error when the budget is used up.
    fn make_room(&mut self) -> Result<(), BatchError> {
        let left = self.budget - self.bytes.len();
        if left == 0 {
            return Err(self.over_budget());
        }
        if self.bytes.capacity() == self.bytes.len() {
            self.bytes.reserve_exact(self.bytes.len().max(Self::STEP).min(left));
        }
        Ok(())
    }

    /// Appends `bytes` zeros and hands them out to be written over.
    pub(super) fn append_zeroed(&mut self, bytes: usize) -> Result<&mut [u8], BatchError> {
        let start = self.bytes.len();
        let left = self.budget - start;
        if bytes > left {
            return Err(self.over_budget());
        }
        if self.bytes.capacity() - start < bytes {
            self.bytes.reserve_exact(bytes.max(start).min(left));
        }
        self.bytes.resize(start + bytes, 0);
        Ok(self.bytes.get_mut(start..).unwrap_or_default())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BatchError> {
        self.append_zeroed(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads until the end of the reader, or to one byte more than the budget.
    fn fill_from(&mut self, mut reader: impl Read) -> Result<(), BatchError> {
        loop {
            let start = self.bytes.len();
            if start == self.budget {
                return match reader.read(&mut [0]) {
                    Ok(0) => Ok(()),
                    Ok(_) => Err(self.over_budget()),
                    Err(error) => Err(self.damaged(error)),
                };
            }
            self.make_room()?;
            // Readers want initialised memory: a step at a time, so that little is cleared in vain.
            let room = self.bytes.capacity().min(self.budget) - start;
            self.bytes.resize(start + room.min(Self::STEP), 0);
            let read = reader.read(self.bytes.get_mut(start..).unwrap_or_default());
            let read = read.map_err(|error| self.damaged(error))?;
            self.bytes.truncate(start + read);
            if read == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn damaged(&self, reason: impl fmt::Display) -> BatchError {
        BatchError::Decompress { compression: self.compression, reason: reason.to_string() }
    }

    fn over_budget(&self) -> BatchError {
        BatchError::Budget { compression: self.compression, budget: self.budget }
    }
}

/// zstd's numbers for its errors are pinned; a result carries them negated.
const ZSTD_WINDOW_TOO_LARGE: usize = 0usize.wrapping_sub(16);
const ZSTD_ROOM_TOO_SMALL: usize = 0usize.wrapping_sub(70);

/// Streams through a window of at most the budget. A frame that asks for a larger one (high levels do, however short
/// the data) is unfolded in one go into a buffer of exactly the budget, which needs no window.
fn decompress_zstd(section: &[u8], out: &mut Output) -> Result<(), BatchError> {
    if let Ok(Some(bytes)) = zstd_safe::get_frame_content_size(section) {
        if bytes > out.budget as u64 {
            return Err(out.over_budget());
        }
        // The size is a claim of foreign bytes: followed as far as ordinary data would unfold.
        out.expect_bytes((bytes as usize).min(section.len().saturating_mul(32)));
    }
    let mut decoder = zstd_safe::DCtx::create();
    let window_log = out.budget.max(1).next_power_of_two().ilog2().clamp(10, 27);
    let limited = decoder.set_parameter(zstd_safe::DParameter::WindowLogMax(window_log));
    limited.map_err(|code| out.damaged(zstd_safe::get_error_name(code)))?;

    let mut input = zstd_safe::InBuffer::around(section);
    loop {
        // With the budget used up, room for one byte shows whether anything is left.
        let start = out.bytes.len();
        let mut probe = [0; 1];
        let in_budget = start < out.budget;
        let step = if in_budget {
            out.make_room()?;
            let mut tail = zstd_safe::OutBuffer::around_pos(&mut out.bytes, start);
            decoder.decompress_stream(&mut tail, &mut input)
        } else {
            let mut tail = zstd_safe::OutBuffer::around(&mut probe[..]);
            let step = decoder.decompress_stream(&mut tail, &mut input);
            if tail.pos() > 0 {
                return Err(out.over_budget());
            }
            step
        };
        match step {
            Err(ZSTD_WINDOW_TOO_LARGE) => return decompress_zstd_at_once(section, out),
            Err(code) => return Err(out.damaged(zstd_safe::get_error_name(code))),
            Ok(_) if out.bytes.len() > out.budget => return Err(out.over_budget()),
            Ok(0) if input.pos() == section.len() => return Ok(()),
            Ok(0) => {}
            // No input is left, and what came out left room for more.
            Ok(_) if input.pos() == section.len() && !(in_budget && out.bytes.len() == out.bytes.capacity()) => {
                return Err(out.damaged("the frame is cut off"));
            }
            Ok(_) => {}
        }
    }
}

fn decompress_zstd_at_once(section: &[u8], out: &mut Output) -> Result<(), BatchError> {
    out.bytes = Vec::with_capacity(out.budget);
    match zstd_safe::decompress(&mut out.bytes, section) {
        Err(ZSTD_ROOM_TOO_SMALL) => return Err(out.over_budget()),
        Err(code) => return Err(out.damaged(zstd_safe::get_error_name(code))),
        Ok(_) => out.bytes.shrink_to_fit(),
    }
    Ok(())
}
