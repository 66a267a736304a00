//! What the host hands to `weir_process`: a header, then the batch's uncompressed records section, verbatim.
//!
//! ```text
//!  0  u32  header_len      from the start of the input to the records section; a multiple of 8
//!  4  u32  record_count    records in the section
//!  8  i64  base_timestamp  milliseconds since 1970; a record's timestamp is this plus its delta
//! 16  i64  base_offset     a record's offset is this plus its delta
//! 24  u16  attributes      of the batch (Kafka v2), compression bits cleared
//! 26  u16  topic_len
//! 28  u32  partition
//! 32  topic                topic_len bytes of UTF-8
//!     zeros                up to a multiple of 8; fields of later versions begin here
//! header_len  records      record_count x { varint body_len, body }, to the end of the input
//! ```
//!
//! A record's **body** is Kafka v2's: varints are zigzag, a length of -1 is null.
//! ```text
//! i8 attributes | varlong timestamp_delta | varint offset_delta | varint key_len, key | varint value_len, value
//!   | varint header_count, header_count x { varint name_len, name, varint value_len, value }
//! ```
//! Where an output names a record, it is by its **index** in the section, from 0; offset deltas may have gaps.

use crate::field;

/// Bytes of the header before the topic.
const FIXED_LEN: usize = 32;

/// The header of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputHeader<'a> {
    /// Records in the section.
    pub record_count: u32,
    /// What the records' timestamp deltas count from.
    pub base_timestamp: i64,
    /// What the records' offset deltas count from.
    pub base_offset: i64,
    /// The batch's attributes without its compression.
    pub attributes: u16,
    /// The partition the batch goes to.
    pub partition: u32,
    /// The topic it goes to.
    pub topic: &'a [u8],
}

/// Low three bits of the attributes: the codec, cleared in an input because its records are uncompressed.
pub const ATTRIBUTES_COMPRESSION_MASK: u16 = 0b111;

impl<'a> InputHeader<'a> {
    /// Length of the encoded header, for a topic of so many bytes.
    #[must_use]
    pub const fn encoded_len(topic_len: usize) -> usize {
        (FIXED_LEN + topic_len).next_multiple_of(8)
    }

    /// Writes the header to the start of `to` and returns its length, behind which the records section goes. `None`
    /// where `to` is too short or the topic longer than 65,535 bytes.
    #[must_use]
    pub fn encode(&self, to: &mut [u8]) -> Option<usize> {
        let topic_len = u16::try_from(self.topic.len()).ok()?;
        let len = Self::encoded_len(self.topic.len());
        let to = to.get_mut(..len)?;
        let (fixed, rest) = to.split_first_chunk_mut::<FIXED_LEN>()?;
        let (topic, padding) = rest.split_at_mut(self.topic.len());
        fixed[0..4].copy_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
        fixed[4..8].copy_from_slice(&self.record_count.to_le_bytes());
        fixed[8..16].copy_from_slice(&self.base_timestamp.to_le_bytes());
        fixed[16..24].copy_from_slice(&self.base_offset.to_le_bytes());
        fixed[24..26].copy_from_slice(&(self.attributes & !ATTRIBUTES_COMPRESSION_MASK).to_le_bytes());
        fixed[26..28].copy_from_slice(&topic_len.to_le_bytes());
        fixed[28..32].copy_from_slice(&self.partition.to_le_bytes());
        topic.copy_from_slice(self.topic);
        padding.fill(0);
        Some(len)
    }

    /// Splits an input into its header and its records section. `None` where it is shorter than it says.
    #[must_use]
    pub fn decode(input: &'a [u8]) -> Option<(InputHeader<'a>, &'a [u8])> {
        let header_len = usize::try_from(field::u32(input, 0)?).ok()?;
        let (header, records) = input.split_at_checked(header_len)?;
        let topic_len = usize::from(field::u16(header, 26)?);
        let decoded = InputHeader {
            record_count: field::u32(header, 4)?,
            base_timestamp: field::i64(header, 8)?,
            base_offset: field::i64(header, 16)?,
            attributes: field::u16(header, 24)?,
            partition: field::u32(header, 28)?,
            topic: header.get(FIXED_LEN..FIXED_LEN + topic_len)?,
        };
        Some((decoded, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: InputHeader<'_> = InputHeader {
        record_count: 3,
        base_timestamp: -5,
        base_offset: 1 << 40,
        attributes: 0b1_0000,
        partition: 9,
        topic: b"clicks",
    };

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut input = [0xee; 64];
        let len = HEADER.encode(&mut input).unwrap();
        assert_eq!((len, InputHeader::encoded_len(6)), (40, 40));
        assert_eq!(InputHeader::decode(&input), Some((HEADER, &[0xee; 24][..])));
    }

    #[test]
    fn the_layout_is_the_drawn_one() {
        let mut input = [0xee; 40];
        HEADER.encode(&mut input).unwrap();
        assert_eq!(input[0..8], [40, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(input[24..40], *b"\x10\0\x06\0\x09\0\0\0clicks\0\0");
    }

    #[test]
    fn the_codec_does_not_reach_the_guest() {
        let mut input = [0; 40];
        InputHeader { attributes: 0b1_0100, ..HEADER }.encode(&mut input).unwrap();
        assert_eq!(InputHeader::decode(&input).unwrap().0.attributes, 0b1_0000);
    }

    #[test]
    fn a_longer_header_of_a_later_version_is_read() {
        let mut input = [0xee; 64];
        HEADER.encode(&mut input).unwrap();
        input[0] = 48;
        assert_eq!(InputHeader::decode(&input), Some((HEADER, &[0xee; 16][..])));
    }

    #[test]
    fn a_cut_input_is_nothing() {
        let mut input = [0; 40];
        HEADER.encode(&mut input).unwrap();
        for len in 0..40 {
            assert_eq!(InputHeader::decode(&input[..len]), None);
            assert_eq!(HEADER.encode(&mut [0; 40][..len]), None);
        }
        input[26] = 9; // a topic longer than its header
        assert_eq!(InputHeader::decode(&input), None);
    }
}
