//! The records of a batch on their way through the stages.

use bytes::Bytes;
use protocol::HEADER_BYTES;

use crate::{reframe::Unreadable, scan};

/// An uncompressed records section and where its records come from.
///
/// Invariant: the section is valid, as `RecordBatch::validate_records` has it; offset deltas ascend and may have gaps.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) section: Bytes,
    /// The same bytes with room for a batch's header in front, where they have that: encoding them copies nothing then.
    roomy: Bytes,
    pub(crate) record_count: u32,
    pub(crate) sources: Sources,
    /// Offset delta of the last record; 0 when there is none.
    pub(crate) last_offset_delta: u32,
    /// Largest timestamp delta; known once something was changed.
    pub(crate) max_timestamp_delta: i64,
}

impl Frame {
    /// The records of a batch as it was produced.
    pub(crate) const fn produced(section: Bytes, record_count: u32, last_offset_delta: u32) -> Frame {
        let sources = Sources::Same;
        Frame { section, roomy: Bytes::new(), record_count, sources, last_offset_delta, max_timestamp_delta: 0 }
    }

    /// Records that were written behind [room](with_room) for a header, by source.
    pub(crate) fn written(
        roomy: Vec<u8>,
        sources: Vec<u32>,
        last_offset_delta: u32,
        max_timestamp_delta: i64,
    ) -> Frame {
        let record_count = sources.len() as u32;
        let roomy = Bytes::from(roomy);
        let section = roomy.slice(HEADER_BYTES..);
        let sources = Sources::Of(sources);
        Frame { section, roomy, record_count, sources, last_offset_delta, max_timestamp_delta }
    }

    /// Gives up the section for its bytes with room for a header in front, where it has that.
    pub(crate) fn take_roomy(&mut self) -> Option<Bytes> {
        if self.roomy.is_empty() {
            return None;
        }
        self.section = Bytes::new();
        Some(std::mem::take(&mut self.roomy))
    }

    /// Only the records that `keeps` says, by source and position behind the record; these keep their offsets.
    pub(crate) fn filtered(&self, keeps: impl Fn(u32, usize) -> bool) -> Result<Frame, Unreadable> {
        let mut section = with_room(self.section.len());
        let mut sources = Vec::with_capacity(self.record_count as usize);
        let (mut last_offset_delta, mut max_timestamp_delta) = (0, i64::MIN);
        let mut at = 0;
        for index in 0..self.record_count {
            let head = scan::head(&self.section, at).ok_or(Unreadable)?;
            let source = self.sources.of(index);
            if keeps(source, head.end) {
                section.extend_from_slice(&self.section[at..head.end]);
                sources.push(source);
                last_offset_delta = head.offset_delta;
                max_timestamp_delta = max_timestamp_delta.max(head.timestamp_delta);
            }
            at = head.end;
        }
        Ok(Frame::written(section, sources, last_offset_delta, max_timestamp_delta))
    }
}

/// Room for a batch's header, and for so many bytes behind it.
pub(crate) fn with_room(section_bytes: usize) -> Vec<u8> {
    let mut roomy = Vec::with_capacity(HEADER_BYTES + section_bytes);
    roomy.resize(HEADER_BYTES, 0);
    roomy
}

/// Which record of the produced batch each record comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The one of the same index.
    Same,
    /// By index; never descending, several of one source after a flat-map.
    Of(Vec<u32>),
}

impl Sources {
    /// The source of a record.
    pub(crate) fn of(&self, index: u32) -> u32 {
        match self {
            Sources::Same => index,
            Sources::Of(sources) => sources[index as usize],
        }
    }

    /// The sources after a stage whose outputs come from these indices of its input.
    pub(crate) fn then(&self, mut origins: Vec<u32>) -> Vec<u32> {
        if let Sources::Of(sources) = self {
            origins.iter_mut().for_each(|origin| *origin = sources[*origin as usize]);
        }
        origins
    }
}

/// A set of indices of a batch's records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(Vec<u64>);

impl Marks {
    /// Room for indices below `count`, none marked.
    pub(crate) fn new(count: u32) -> Marks {
        Marks(vec![0; count.div_ceil(64) as usize])
    }

    /// Marks one; `true` when it was not marked before.
    pub(crate) fn mark(&mut self, index: u32) -> bool {
        let (word, bit) = (&mut self.0[index as usize / 64], 1 << (index % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether one is marked.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.0[index as usize / 64] >> (index % 64) & 1 == 1
    }

    /// How many are marked.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}
