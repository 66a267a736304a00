//! Where the parts of a segment lie in its file: noted as redb writes them, or found again by looking at every page.
//!
//! Owns positions, never bytes. A part is read from where it lies, without redb: its header and checksum say whether it
//! is the right one. So a damaged page of redb's trees keeps no record from its readers.
//!
//! Invariants
//! - [`Locator`] shows a position only after the sync that made it durable.
//! - [`scan`] finds only parts whose every byte is as it was written.
//!
//! Start at [`Locator`].

use std::{collections::BTreeMap, path::Path};

use crate::{
    StoreId,
    fault::Fault,
    file_system::StoreFile,
    layout::{PAGE_BYTES, PART_HEADER_BYTES, PartOnPage, PartPlace, parts_on_page},
    record::CommitRecord,
    segment::parse_record,
    sync::{Mutex, RwLock},
};

/// Of bytes that are as they were written, and mean nothing.
const NONSENSE: &str = "a record makes no sense";

/// What [`scan`] has in memory at a time; parts of the largest class fit in twice.
const WINDOW_BYTES: usize = 4 << 20;

/// Read beyond a window, so that a part that begins in it is at hand whole (but for the largest, which are read again).
const OVERLAP_BYTES: usize = (1 << 20) + PAGE_BYTES;

/// A part's file position and bytes, header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartAt {
    pub(crate) position: u64,
    pub(crate) bytes: u32,
}

/// Parts by (sequence, part).
pub(crate) type PartMap = BTreeMap<(u64, u16), PartAt>;

/// The parts of a file that is being written. Small ones move: redb copies the leaf they share.
#[derive(Debug)]
pub(crate) struct Locator {
    store: StoreId,
    segment: u64,
    epoch: u64,
    durable: RwLock<PartMap>,
    written: Mutex<Vec<((u64, u16), PartAt)>>,
}

impl Locator {
    pub(crate) fn new(store: StoreId, segment: u64, epoch: u64) -> Locator {
        Locator { store, segment, epoch, durable: RwLock::default(), written: Mutex::default() }
    }

    /// Takes parts that were found in the file.
    pub(crate) fn found(&self, parts: PartMap) {
        *self.durable.write() = parts;
    }

    /// Takes note of the parts on a page that redb writes at `offset`.
    pub(crate) fn note_write(&self, offset: u64, page: &[u8]) {
        let mut written = self.written.lock();
        for PartOnPage { place, start, bytes } in parts_on_page(page) {
            if (place.store, place.segment, place.epoch) == (self.store, self.segment, self.epoch) {
                let at = PartAt { position: offset + start as u64, bytes: bytes as u32 };
                written.push(((place.sequence, place.part), at));
            }
        }
    }

    /// Shows what was written: it is durable now.
    pub(crate) fn publish(&self) {
        let written = std::mem::take(&mut *self.written.lock());
        self.durable.write().extend(written);
    }

    pub(crate) fn get(&self, sequence: u64, part: u16) -> Option<PartAt> {
        self.durable.read().get(&(sequence, part)).copied()
    }

    /// How many parts there are.
    pub(crate) fn len(&self) -> usize {
        self.durable.read().len()
    }

    /// All of them.
    pub(crate) fn parts(&self) -> PartMap {
        self.durable.read().clone()
    }
}

/// A part that was found on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundPart {
    pub(crate) place: PartPlace,
    pub(crate) at: PartAt,
    /// Whether every byte of it is as it was written; else its header alone is.
    pub(crate) whole: bool,
}

/// Every part in a file, found page by page, whole and with a right checksum; of copies, any. Also parts that were
/// written and never committed: the caller knows where the commits end.
pub(crate) fn scan(path: &Path, file: &dyn StoreFile) -> Result<Vec<(PartPlace, PartAt)>, Fault> {
    let found = scan_headers(path, file)?.into_iter().filter(|part| part.whole);
    Ok(found.map(|part| (part.place, part.at)).collect())
}

/// [`scan`], with those of which only the header is as it was written: some of what is in them may be.
pub(crate) fn scan_headers(path: &Path, file: &dyn StoreFile) -> Result<Vec<FoundPart>, Fault> {
    let io = |error| Fault::io(path, "read", error);
    let len = file.len().map_err(io)?;
    let mut found = Vec::new();
    let mut window = Vec::new();
    let mut at = 0;
    while at < len {
        window.resize(((len - at) as usize).min(WINDOW_BYTES + OVERLAP_BYTES), 0);
        file.read_at(at, &mut window).map_err(io)?;
        at = scan_window(file, at, &window, &mut found).map_err(io)?;
    }
    Ok(found)
}

/// Looks at the pages that begin in a window; where the next one begins.
fn scan_window(
    file: &dyn StoreFile,
    window_at: u64,
    window: &[u8],
    found: &mut Vec<FoundPart>,
) -> std::io::Result<u64> {
    let mut page = 0;
    while page < window.len().min(WINDOW_BYTES) {
        let mut next = page + PAGE_BYTES;
        for PartOnPage { place, start, bytes } in parts_on_page(&window[page..]) {
            let position = window_at + (page + start) as u64;
            let whole = match window.get(page + start..page + start + bytes) {
                Some(part) => place.check_whole(part).is_ok(),
                None => is_whole_in_file(file, place, position, bytes)?,
            };
            found.push(FoundPart { place, at: PartAt { position, bytes: bytes as u32 }, whole });
            if whole {
                // What lies within a part is its data, whatever it looks like.
                next = next.max((page + start + bytes).next_multiple_of(PAGE_BYTES));
            }
        }
        page = next;
    }
    Ok(window_at + page as u64)
}

fn is_whole_in_file(file: &dyn StoreFile, place: PartPlace, position: u64, bytes: usize) -> std::io::Result<bool> {
    if position + bytes as u64 > file.len()? {
        return Ok(false);
    }
    let mut part = vec![0; bytes];
    file.read_at(position, &mut part)?;
    Ok(place.check_whole(&part).is_ok())
}

/// The record in part 0 of a commit, and where the small data behind it begins. Where that data is damaged the record is
/// still to be had: it has the checksum of the data, and so what is left of the part's own is the record's.
pub(crate) fn sound_record(place: PartPlace, part: &[u8]) -> Result<(CommitRecord, u64), &'static str> {
    let whole = place.check_whole(part);
    let body = place.body(part)?;
    let (record, inline_base) = parse_record(body).ok_or_else(|| whole.err().unwrap_or(NONSENSE))?;
    let (record_bytes, inline) = body.split_at_checked(inline_base as usize).ok_or(NONSENSE)?;
    if let Err(what) = whole {
        let inline_crc = inline_crc(&record, inline.len()).ok_or(what)?;
        let crc = crc32c::crc32c_combine(crc32c::crc32c(record_bytes), inline_crc, inline.len());
        if crc != PartPlace::body_crc(part).ok_or(what)? {
            return Err(what);
        }
    }
    Ok((record, inline_base))
}

/// The checksum that a record gives of all the small data behind it: that of its last piece, which goes on from those
/// before.
fn inline_crc(record: &CommitRecord, bytes: usize) -> Option<u32> {
    let mut pieces = record.extents.iter().flat_map(|row| &row.extent.pieces);
    let last = pieces.rfind(|piece| piece.part == 0)?;
    (last.position + u64::from(last.length) == bytes as u64).then_some(last.crc)
}

/// Reads the record of a commit, by where its part 0 lies.
pub(crate) fn read_record(
    path: &Path,
    file: &dyn StoreFile,
    place: PartPlace,
    at: PartAt,
) -> Result<(CommitRecord, u64), Fault> {
    let mut part = vec![0; at.bytes as usize];
    file.read_at(at.position, &mut part).map_err(|error| Fault::io(path, "read", error))?;
    sound_record(place, &part)
        .map_err(|what| Fault::damaged(path, format!("{what} (the record of commit {})", place.sequence)))
}

/// Where the commits of a segment end that was not closed, and of which redb shows those up to `shown`: behind that, as long
/// as there is a next one with every byte in the file. Where any page around the last commit is damaged, redb takes the one
/// before for the last, as it does with one that was never finished. Whether a commit that is all there was acknowledged
/// nobody knows, so it counts. `parts` are whole, and `place` is of any of them.
pub(crate) fn end_of_commits(
    path: &Path,
    file: &dyn StoreFile,
    place: PartPlace,
    parts: &PartMap,
    shown: u64,
) -> Result<u64, Fault> {
    let mut last = shown;
    while let Some(at) = parts.get(&(last + 1, 0)) {
        let (record, _) = read_record(path, file, PartPlace { sequence: last + 1, part: 0, ..place }, *at)?;
        if !(1..=record.parts).all(|part| parts.contains_key(&(last + 1, part))) {
            break;
        }
        last += 1;
    }
    Ok(last)
}

/// Reads a part and checks all of it; its body.
pub(crate) fn read_part(path: &Path, file: &dyn StoreFile, place: PartPlace, at: PartAt) -> Result<Vec<u8>, Fault> {
    let mut part = vec![0; at.bytes as usize];
    file.read_at(at.position, &mut part).map_err(|error| Fault::io(path, "read", error))?;
    place.check_whole(&part).map_err(|what| Fault::damaged(path, what))?;
    part.drain(..PART_HEADER_BYTES);
    Ok(part)
}
