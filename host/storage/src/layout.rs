//! How a commit lies in a segment's `log` table: keys, page classes, and the header of a part.
//!
//! Owns bytes and sizes only; no I/O.
//!
//! ```text
//! log: (sequence u64, part u16) -> part; sequence 0 holds the segment's header (part 0) and its snapshot (1..)
//!
//! part     0 magic "wprt" | 4 part u16 | 6 version u16 | 8 sequence u64 | 16 epoch u64 | 24 segment u64
//!         32 store id     | 48 body bytes u32 | 52 crc32c(body) u32 | 56 zero u32 | 60 crc32c(bytes 0..60) u32
//!         64 body
//! part 0   body: u32 record bytes | commit record | small data
//! part 1.. body: record batches, packed in the order of partitions
//! ```
//! A leaf of redb is 2^k pages and holds one large value; one byte more would double it. So data is cut into bodies that
//! fill a *page class* to the last byte, largest first, and what is left rides in part 0.
//!
//! A part says by itself where it belongs, so it can be found without redb, in whatever page it lies: that is how parts
//! are read ([`parts_on_page`]), and how they are found again in a file that redb refuses.
//!
//! ```text
//! leaf of the log (redb's file format 3): 0 type u8 = 1 | 1 zero | 2 rows u16 | 4 end of each value in the page, u32 x rows
//!                                         | keys, 10 bytes each | values
//! ```
//!
//! Start at [`cut`] and [`PartPlace`].

use redb::TableDefinition;

use crate::StoreId;

/// The table of commits.
pub(crate) const LOG_TABLE: TableDefinition<'static, (u64, u16), &'static [u8]> = TableDefinition::new("log");

/// Bytes before a part's body.
pub(crate) const PART_HEADER_BYTES: usize = 64;

/// What a redb leaf with one row of the log spends beside the value: type and count (4), key (10), end of value (4).
const LEAF_OVERHEAD_BYTES: usize = 18;

pub(crate) const PAGE_BYTES: usize = 4096;

/// What a leaf of redb says of itself in its first byte.
const LEAF: u8 = 1;

const KEY_BYTES: usize = 10;

/// Largest class: fewer, larger pages are faster (1 MiB reached 0.70 of the raw disk where 64 KiB reached 0.47). Readers
/// do not mind: they read pieces of a part.
const CLASS_MAX: usize = 1 << 20;

/// Smallest class for a part of its own; less than its body rides with the commit record.
const CLASS_MIN: usize = 16 << 10;

const MAGIC: [u8; 4] = *b"wprt";
const PART_VERSION: u16 = 1;

/// Bytes of data that fill a page class exactly.
const fn body_capacity(class: usize) -> usize {
    class - LEAF_OVERHEAD_BYTES - PART_HEADER_BYTES
}

/// How packed data is cut: the sizes of parts 1.., and what rides in part 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) parts: Vec<usize>,
    pub(crate) inline: usize,
    /// Whether parts of the largest class follow, as many as it takes.
    endless: bool,
}

impl Cut {
    /// For data whose size is not known before it is packed.
    pub(crate) fn endless() -> Cut {
        Cut { parts: Vec::new(), inline: 0, endless: true }
    }

    /// Bytes of the part after the first `number`; `None` when what follows rides in part 0.
    pub(crate) fn part_bytes(&self, number: u16) -> Option<usize> {
        let listed = self.parts.get(usize::from(number)).copied();
        listed.or_else(|| self.endless.then_some(body_capacity(CLASS_MAX)))
    }
}

/// Cuts packed data into page classes. Parts fill their pages but for at most one, which leaves less than 1/32 empty.
pub(crate) fn cut(total: usize) -> Cut {
    let mut rest = total;
    let mut parts = Vec::new();
    while rest >= body_capacity(CLASS_MIN) {
        let fits_in = (rest + LEAF_OVERHEAD_BYTES + PART_HEADER_BYTES).next_power_of_two();
        let empty = fits_in.checked_sub(rest).unwrap_or(usize::MAX);
        if fits_in <= CLASS_MAX && empty <= rest / 32 {
            parts.push(rest);
            rest = 0;
            break;
        }
        let class = (fits_in / 2).min(CLASS_MAX);
        let part = body_capacity(class).min(rest);
        parts.push(part);
        rest -= part;
    }
    Cut { parts, inline: rest, endless: false }
}

/// What a commit of this much data and record takes of the file, more or less: room to allocate ahead.
pub(crate) fn file_bytes_estimate(data: usize, record: usize) -> u64 {
    // A sixteenth for page ends, and two dozen pages for redb's trees and a part 0 of its own class.
    (data + data / 16 + 2 * record + 32 * PAGE_BYTES) as u64
}

/// Where a part belongs; says so in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartPlace {
    pub(crate) store: StoreId,
    pub(crate) segment: u64,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) part: u16,
}

impl PartPlace {
    /// Fills in the header of `part`, whose body is in place behind it and has this checksum.
    pub(crate) fn write_header(&self, part: &mut [u8], body_crc: u32) {
        let (header, body) = part.split_at_mut(PART_HEADER_BYTES);
        header[0..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&self.part.to_le_bytes());
        header[6..8].copy_from_slice(&PART_VERSION.to_le_bytes());
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        header[24..32].copy_from_slice(&self.segment.to_le_bytes());
        header[32..48].copy_from_slice(&self.store.0);
        header[48..52].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[52..56].copy_from_slice(&body_crc.to_le_bytes());
        header[56..60].fill(0);
        let crc = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
    }

    /// A whole part with this body.
    pub(crate) fn part_of(&self, body: &[u8]) -> Vec<u8> {
        let mut part = vec![0; PART_HEADER_BYTES];
        part.extend_from_slice(body);
        self.write_header(&mut part, crc32c::crc32c(body));
        part
    }

    /// Where a part says that it belongs, and the bytes of its body; `None` when this is no header of a part.
    pub(crate) fn parse(header: &[u8]) -> Option<(PartPlace, u32)> {
        let header: &[u8; PART_HEADER_BYTES] = header.first_chunk()?;
        if header[..4] != MAGIC || header[6..8] != PART_VERSION.to_le_bytes() {
            return None;
        }
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if crc32c::crc32c(&header[..60]) != u32_at(60) {
            return None;
        }
        let mut store = StoreId([0; 16]);
        store.0.copy_from_slice(&header[32..48]);
        let part = u16::from_le_bytes([header[4], header[5]]);
        Some((PartPlace { store, segment: u64_at(24), epoch: u64_at(16), sequence: u64_at(8), part }, u32_at(48)))
    }

    /// The body of a stored part that says it belongs here. The body's own checksum is *not* checked: a reader checks
    /// the checksums of the pieces it takes out ([`PartPlace::check_whole`] for the rest).
    pub(crate) fn body<'p>(&self, part: &'p [u8]) -> Result<&'p [u8], &'static str> {
        let (header, body) = part.split_at_checked(PART_HEADER_BYTES).ok_or("a part is cut off")?;
        let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if crc32c::crc32c(&header[..60]) != field(60) {
            return Err("a part's header has a wrong checksum");
        }
        let mut expected = [0; 48];
        expected[0..4].copy_from_slice(&MAGIC);
        expected[4..6].copy_from_slice(&self.part.to_le_bytes());
        expected[6..8].copy_from_slice(&PART_VERSION.to_le_bytes());
        expected[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        expected[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        expected[24..32].copy_from_slice(&self.segment.to_le_bytes());
        expected[32..48].copy_from_slice(&self.store.0);
        if header[..48] != expected {
            return Err("a part belongs to another place");
        }
        if field(48) as usize != body.len() {
            return Err("a part has a wrong length");
        }
        Ok(body)
    }

    /// The checksum of the body in a part's header.
    pub(crate) fn body_crc(part: &[u8]) -> Option<u32> {
        part.get(52..)?.first_chunk().copied().map(u32::from_le_bytes)
    }

    /// [`PartPlace::body`], with every byte checked.
    pub(crate) fn check_whole<'p>(&self, part: &'p [u8]) -> Result<&'p [u8], &'static str> {
        let body = self.body(part)?;
        if Some(crc32c::crc32c(body)) == PartPlace::body_crc(part) {
            Ok(body)
        } else {
            Err("a part has a wrong checksum")
        }
    }
}

/// A part that lies on a page: where it belongs, where it begins in the page, and its bytes, header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartOnPage {
    pub(crate) place: PartPlace,
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

/// The parts on a page of redb, of which at least the first 4 KiB are at hand. Pages that are not leaves of the log have
/// none. Only headers are checked: a body may reach beyond what is at hand.
pub(crate) fn parts_on_page(page: &[u8]) -> impl Iterator<Item = PartOnPage> + '_ {
    let rows = match page {
        [LEAF, _, low, high, ..] => usize::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    };
    let end_of = move |row: usize| {
        let end = page.get(4 + 4 * row..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*end) as usize)
    };
    let mut next = 4 + rows * (4 + KEY_BYTES);
    let ends = (0..rows).map_while(end_of);
    ends.filter_map(move |end| {
        let start = std::mem::replace(&mut next, end);
        let (place, body) = PartPlace::parse(page.get(start..)?)?;
        let bytes = PART_HEADER_BYTES + body as usize;
        (end.checked_sub(start) == Some(bytes)).then_some(PartOnPage { place, start, bytes })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: PartPlace = PartPlace { store: StoreId([7; 16]), segment: 1, epoch: 2, sequence: 3, part: 4 };

    #[test]
    fn a_part_opens_in_its_place_and_nowhere_else() {
        let mut part = vec![9; PART_HEADER_BYTES + 100];
        let crc = crc32c::crc32c(&part[PART_HEADER_BYTES..]);
        PLACE.write_header(&mut part, crc);
        assert!(PLACE.check_whole(&part).is_ok());
        assert!(PartPlace { epoch: 1, ..PLACE }.body(&part).is_err());
        assert!(PartPlace { part: 5, ..PLACE }.body(&part).is_err());
        assert!(PLACE.body(&part[..70]).is_err());
        for at in 0..part.len() {
            let mut flipped = part.clone();
            flipped[at] ^= 1;
            assert!(PLACE.check_whole(&flipped).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_keeps_every_byte_and_wastes_little(total in 0_usize..20 << 20) {
            let cut = cut(total);
            prop_assert_eq!(cut.parts.iter().sum::<usize>() + cut.inline, total);
            prop_assert!(cut.inline < CLASS_MIN);
            let pages: usize =
                cut.parts.iter().map(|part| (part + PART_HEADER_BYTES + LEAF_OVERHEAD_BYTES).next_power_of_two()).sum();
            prop_assert!(pages <= total + total / 16 + PAGE_BYTES);
        }
    }
}
