//! The bytes of one file, in pages that copies share.
//!
//! Start at [`Blocks`].

use std::sync::{Arc, LazyLock};

/// A page, the unit of sharing.
const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// What a block holds that was allocated and not written.
static ZEROS: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));

/// The contents of a file. Copies are cheap.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    len: u64,
    pages: Arc<Vec<Option<Arc<Page>>>>,
    /// How many of the pages take a block.
    taken: usize,
}

impl Blocks {
    /// Its length.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What its pages take.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        (self.taken * PAGE_BYTES) as u64
    }

    /// What writing a range would take of the disk beyond that.
    #[must_use]
    pub fn missing_bytes(&self, offset: u64, bytes: u64) -> u64 {
        let range = offset as usize / PAGE_BYTES..(offset + bytes).div_ceil(PAGE_BYTES as u64) as usize;
        let missing = range.filter(|page| self.pages.get(*page).is_none_or(Option::is_none));
        (missing.count() * PAGE_BYTES) as u64
    }

    /// Takes blocks for a range, which reads as before.
    pub fn allocate(&mut self, offset: u64, bytes: u64) {
        let range = offset as usize / PAGE_BYTES..(offset + bytes).div_ceil(PAGE_BYTES as u64) as usize;
        let pages = self.pages_until(range.end);
        let missing = pages[range].iter_mut().filter(|page| page.is_none());
        self.taken += missing.map(|page| *page = Some(ZEROS.clone())).count();
    }

    /// Fills `out` from `offset` on; `false` where the file ends before.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        if offset + out.len() as u64 > self.len {
            return false;
        }
        each_page(offset, out.len(), |page, within, range| {
            let out = &mut out[range];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(page) => out.copy_from_slice(&page[within..within + out.len()]),
                None => out.fill(0),
            }
        });
        true
    }

    /// Writes, and extends the file where the end is behind its own.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.put(offset, data);
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Writes without a change of the length, also behind the end: what a disk does that got the data and not the length.
    pub fn put(&mut self, offset: u64, data: &[u8]) {
        let pages = self.pages_until((offset as usize + data.len()).div_ceil(PAGE_BYTES));
        let mut taken = 0;
        each_page(offset, data.len(), |page, within, range| {
            let data = &data[range];
            taken += usize::from(pages[page].is_none());
            if data.len() == PAGE_BYTES {
                pages[page] = Some(Arc::new(data.try_into().expect("it has the length of a page")));
                return;
            }
            let page = pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + data.len()].copy_from_slice(data);
        });
        self.taken += taken;
    }

    /// The pages, so many at least.
    fn pages_until(&mut self, count: usize) -> &mut Vec<Option<Arc<Page>>> {
        let pages = Arc::make_mut(&mut self.pages);
        if count > pages.len() {
            pages.resize(count, None);
        }
        pages
    }

    /// Makes a range read as zeros.
    pub fn zero(&mut self, offset: u64, bytes: u64) {
        let end = (offset + bytes).min((self.pages.len() * PAGE_BYTES) as u64);
        if end <= offset {
            return;
        }
        let pages = Arc::make_mut(&mut self.pages);
        let mut freed = 0;
        each_page(offset, (end - offset) as usize, |page, within, range| match &mut pages[page] {
            page if range.len() == PAGE_BYTES => freed += usize::from(page.take().is_some()),
            Some(page) => Arc::make_mut(page)[within..within + range.len()].fill(0),
            None => {}
        });
        self.taken -= freed;
    }

    /// Cuts off or extends with zeros.
    pub fn set_len(&mut self, len: u64) {
        let pages = (len as usize).div_ceil(PAGE_BYTES);
        if pages < self.pages.len() {
            self.taken -= self.pages[pages..].iter().flatten().count();
            Arc::make_mut(&mut self.pages).truncate(pages);
        }
        self.zero(len, (self.pages.len() * PAGE_BYTES) as u64 - len.min((self.pages.len() * PAGE_BYTES) as u64));
        self.len = len;
    }
}

/// Visits the pages of a range: page, position within it, and which bytes of the range these are.
fn each_page(offset: u64, bytes: usize, mut visit: impl FnMut(usize, usize, std::ops::Range<usize>)) {
    let mut at = 0;
    while at < bytes {
        let position = offset as usize + at;
        let within = position % PAGE_BYTES;
        let count = (PAGE_BYTES - within).min(bytes - at);
        visit(position / PAGE_BYTES, within, at..at + count);
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_off_and_extended_again_has_zeros_there() {
        let mut blocks = Blocks::default();
        blocks.write(4_000, &[7; 5_000]);
        let copy = blocks.clone();
        blocks.set_len(4_100);
        blocks.set_len(9_000);
        let mut out = [1; 200];
        assert!(blocks.read(4_000, &mut out));
        assert_eq!((out[99], out[100]), (7, 0));
        assert!(copy.read(4_000, &mut out) && out == [7; 200]);
        assert!(!copy.read(8_900, &mut out));
    }

    #[test]
    fn blocks_are_counted_as_they_are_taken_and_given_back() {
        let mut blocks = Blocks::default();
        blocks.write(4_000, &[7; 200]);
        assert_eq!((blocks.disk_bytes(), blocks.missing_bytes(0, 20_000)), (8_192, 12_288));
        blocks.allocate(0, 20_000);
        assert_eq!((blocks.disk_bytes(), blocks.missing_bytes(0, 20_000)), (20_480, 0));
        blocks.write(8_192, &[7; 4_096]);
        blocks.zero(0, 4_096);
        assert_eq!((blocks.disk_bytes(), blocks.len()), (16_384, 12_288));
        blocks.set_len(4_200);
        assert_eq!(blocks.disk_bytes(), 4_096);
    }

    #[test]
    fn what_is_put_behind_the_end_shows_once_the_file_is_longer_unless_it_was_cut() {
        let mut blocks = Blocks::default();
        blocks.put(0, &[7; 10]);
        assert_eq!(blocks.len(), 0);
        blocks.set_len(0);
        blocks.set_len(10);
        let mut out = [1; 10];
        assert!(blocks.read(0, &mut out) && out == [0; 10]);
    }
}
