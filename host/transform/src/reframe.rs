//! Writes the records section that a stage leaves behind.
//!
//! Owns the copying: runs of kept records move as bytes, a patched record gets its new value, a whole record of the
//! guest's its place. What a guest made is checked here against the limits, record by record; one that breaks a rule
//! fails alone.
//!
//! Invariants
//! - What was written is always a valid section: a record that turns out bad is taken back before the next one.
//! - Offset deltas ascend. Kept records keep theirs (dropped ones leave gaps); whole records of the guest's take the
//!   first ones, in order.

use abi::{
    HostCode, Span,
    output::{Decisions, FailureEntry, Output, Patch, RecordEntry},
};
use protocol::{
    BatchHeader, HEADER_BYTES, Record, TopicName,
    limits::{
        BATCH_RECORDS_MAX, DECOMPRESSED_BYTES_MAX, GUEST_FAILURE_TEXT_BYTES_PER_BATCH_MAX, GUEST_TEXT_BYTES_MAX,
        RECORD_BYTES_CEILING, TRANSFORM_TARGETS_MAX,
    },
    records, varint,
};

use crate::{Fault, frame::with_room, guest::printable, scan};

/// What the guest's records are measured by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Of the batch as produced: its base timestamp is what deltas count from.
    pub(crate) header: BatchHeader,
    /// Of the own topic.
    pub(crate) max_record_bytes: usize,
    /// Topics the transform may route to.
    pub(crate) target_count: usize,
    /// Those of them that take only records with a key: target n is bit n - 1 ([`Rules::keyed_targets`]).
    pub(crate) keyed_targets: u64,
    /// What one batch may return, over all pieces.
    pub(crate) output_bytes: u64,
}

impl Rules {
    /// Of these targets, those that are among the topics that take only records with a key.
    pub(crate) fn keyed_targets(targets: &[TopicName], keyed_topics: &[TopicName]) -> u64 {
        let keyed = targets.iter().enumerate().filter(|(_, target)| keyed_topics.contains(target));
        keyed.fold(0, |bits, (index, _)| bits | 1 << index)
    }

    fn needs_key(&self, target: u16) -> bool {
        self.keyed_targets >> (target - 1) & 1 == 1
    }
}

// One bit for each target.
const _: () = assert!(TRANSFORM_TARGETS_MAX <= u64::BITS as usize);

/// Some of a stage's records, in order, as one call was given them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// Index of the first one at the stage.
    pub(crate) first: u32,
    pub(crate) section: &'a [u8],
}

/// A record that failed at this stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its index at the stage.
    pub(crate) origin: u32,
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) backtrace: Option<String>,
}

/// A record for another topic.
#[derive(Debug, Clone)]
pub(crate) struct RoutedRecord {
    /// Index at the stage of the record it comes from.
    pub(crate) origin: u32,
    /// Number of the declared target, from 1.
    pub(crate) target: u16,
    pub(crate) record: Record,
}

/// Our own section cannot be read: it was validated, so this is our bug, and it harms the batch instead of the broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unreadable;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reframer {
    rules: Rules,
    /// How much to make room for when the first record is written.
    section_bytes: usize,
    record_count: u32,
    /// The section behind [room](with_room) for a header; empty as long as nothing was applied.
    out: Vec<u8>,
    origins: Vec<u32>,
    routed: Vec<RoutedRecord>,
    failures: Vec<Failure>,
    last_offset_delta: u32,
    max_timestamp_delta: i64,
    /// Records were written with the delta they had, or with the next free one. With both, all are numbered anew.
    has_kept: bool,
    has_numbered: bool,
    returned_bytes: u64,
    text_bytes: usize,
}

/// What a stage left behind.
#[derive(Debug)]
pub(crate) struct Reframed {
    /// The section behind [room](with_room) for a header.
    pub(crate) roomy: Vec<u8>,
    /// Index at the stage that each record comes from; never descending.
    pub(crate) origins: Vec<u32>,
    pub(crate) routed: Vec<RoutedRecord>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) last_offset_delta: u32,
    pub(crate) max_timestamp_delta: i64,
}

impl Reframed {
    /// The records.
    pub(crate) fn section(&self) -> &[u8] {
        &self.roomy[HEADER_BYTES..]
    }

    /// Records of the stage that something came of.
    pub(crate) fn kept_count(&self) -> u64 {
        // Both lists ascend by origin.
        let mut routed = self.routed.iter().map(|routed| routed.origin).peekable();
        let (mut count, mut last) = (0, None);
        for &origin in &self.origins {
            while let Some(elsewhere) = routed.next_if(|elsewhere| *elsewhere < origin) {
                count += u64::from(last.replace(elsewhere) != Some(elsewhere));
            }
            count += u64::from(last.replace(origin) != Some(origin));
        }
        for elsewhere in routed {
            count += u64::from(last.replace(elsewhere) != Some(elsewhere));
        }
        count
    }
}

/// A place to fall back to.
#[derive(Debug, Clone, Copy)]
struct Mark {
    out: usize,
    origins: usize,
    routed: usize,
    last_offset_delta: u32,
    max_timestamp_delta: i64,
}

impl Reframer {
    /// Nothing written, and no room made for it: most batches pass as they are.
    pub(crate) fn new(rules: Rules, section_bytes: usize, record_count: u32) -> Reframer {
        Reframer {
            rules,
            section_bytes,
            record_count,
            out: Vec::new(),
            origins: Vec::new(),
            routed: Vec::new(),
            failures: Vec::new(),
            last_offset_delta: 0,
            max_timestamp_delta: i64::MIN,
            has_kept: false,
            has_numbered: false,
            returned_bytes: 0,
            text_bytes: 0,
        }
    }

    /// Carries out what a guest decided about a piece. `false` when something in it was against the contract.
    pub(crate) fn apply(&mut self, piece: Piece<'_>, output: &Output<'_>, memory: &[u8]) -> Result<bool, Unreadable> {
        if self.out.is_empty() {
            self.out = with_room(self.section_bytes + new_bytes(output, self.rules.output_bytes));
            self.origins.reserve(self.record_count as usize);
        }
        let failures_before = self.failures.len();
        for failure in output.failures.iter() {
            self.fail_by_guest(piece.first, failure, memory);
        }
        let declared = failures_before..self.failures.len();
        match output.decisions {
            Decisions::KeepAll => self.keep(piece, std::iter::repeat(Change::Keep), &declared, memory)?,
            Decisions::DropAll => {}
            Decisions::Bitmap(kept) => {
                let changes = kept.iter().map(|kept| if kept { Change::Keep } else { Change::Drop });
                self.keep(piece, changes, &declared, memory)?;
            }
            Decisions::Patch { kept, patches } => {
                let mut patches = patches.iter();
                let mut patch = || patches.next().map_or(Change::Drop, Change::of);
                let changes = kept.iter().map(|kept| if kept { patch() } else { Change::Drop });
                self.keep(piece, changes, &declared, memory)?;
            }
            Decisions::Records(entries) => self.write_records(piece.first, entries.iter(), &declared, memory),
        }
        Ok(self.failures.len() == declared.end)
    }

    /// A record fails for a reason that the host found.
    pub(crate) fn fail(&mut self, origin: u32, fault: Fault) {
        let text = self.within_text_budget(fault.text);
        let backtrace = fault.backtrace.map(|backtrace| self.within_text_budget(backtrace));
        self.failures.push(Failure { origin, code: fault.code as u16, text, backtrace });
    }

    fn fail_by_guest(&mut self, first: u32, failure: FailureEntry, memory: &[u8]) {
        let length = failure.text.length.min(GUEST_TEXT_BYTES_MAX as u32);
        let text = match (Span { length, ..failure.text }).of(memory) {
            Some(text) if self.text_bytes < GUEST_FAILURE_TEXT_BYTES_PER_BATCH_MAX => printable(text),
            Some(_) => String::new(),
            None => "(a text outside of the guest's memory)".to_owned(),
        };
        let text = self.within_text_budget(text);
        // The host's codes are the host's: a guest cannot say that it trapped.
        let code = failure.code.min(abi::HOST_CODES_START - 1);
        self.failures.push(Failure { origin: first + failure.record, code, text, backtrace: None });
    }

    fn within_text_budget(&mut self, text: String) -> String {
        if self.text_bytes >= GUEST_FAILURE_TEXT_BYTES_PER_BATCH_MAX {
            return String::new();
        }
        self.text_bytes += text.len();
        text
    }

    /// Whether the guest itself failed the record; `declared` is ascending and gets shorter as records are asked for
    /// in order.
    fn is_declared(&self, declared: &mut std::ops::Range<usize>, origin: u32) -> bool {
        while declared.start < declared.end {
            match self.failures[declared.start].origin.cmp(&origin) {
                std::cmp::Ordering::Less => declared.start += 1,
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => return false,
            }
        }
        false
    }

    /// Copies records that stay, in runs, and patches values.
    fn keep(
        &mut self,
        piece: Piece<'_>,
        changes: impl Iterator<Item = Change>,
        declared: &std::ops::Range<usize>,
        memory: &[u8],
    ) -> Result<(), Unreadable> {
        let section = piece.section;
        let mut declared = declared.clone();
        let (mut at, mut run_start, mut origin) = (0, 0, piece.first);
        let mut changes = changes;
        self.has_kept = true;
        while at < section.len() {
            let head = scan::head(section, at).ok_or(Unreadable)?;
            let change = changes.next().ok_or(Unreadable)?;
            let change = if self.is_declared(&mut declared, origin) { Change::Drop } else { change };
            if let Change::Keep = change {
                self.note(origin, head.offset_delta, head.timestamp_delta);
            } else {
                // The run of kept records ends here.
                self.out.extend_from_slice(&section[run_start..at]);
                run_start = head.end;
                self.patch(origin, section, &head, change, memory)?;
            }
            (at, origin) = (head.end, origin + 1);
        }
        self.out.extend_from_slice(&section[run_start..]);
        Ok(())
    }

    fn patch(
        &mut self,
        origin: u32,
        section: &[u8],
        head: &scan::Head,
        change: Change,
        memory: &[u8],
    ) -> Result<(), Unreadable> {
        let value = match change {
            Change::Keep | Change::Drop => return Ok(()),
            Change::Null => None,
            Change::Value(span) => match self.take(span, memory) {
                Ok(value) => Some(value),
                Err(fault) => {
                    self.fail(origin, fault);
                    return Ok(());
                }
            },
        };
        let (value_at, value_end) = scan::value(section, head).ok_or(Unreadable)?;
        let (before, after) = (&section[head.body..value_at], &section[value_end..head.end]);
        let bytes = before.len() + value.map_or(0, <[u8]>::len) + after.len();
        if let Err(fault) = self.check_room(bytes) {
            self.fail(origin, fault);
            return Ok(());
        }
        let start = self.out.len();
        let value_length = value.map_or(-1, |value| value.len() as i32);
        varint::write_i32(&mut self.out, (bytes + varint::len_i32(value_length)) as i32);
        self.out.extend_from_slice(before);
        varint::write_i32(&mut self.out, value_length);
        self.out.extend_from_slice(value.unwrap_or_default());
        match *after {
            // Most records have no headers: their number is all there is, and a call to copy it takes longer.
            [none] => self.out.push(none),
            _ => self.out.extend_from_slice(after),
        }
        // That many bytes are a little more than key, value and headers, so the exact sum is rarely needed.
        if bytes > self.rules.max_record_bytes
            && let Err(fault) = check_record(&self.out[start..], self.rules.max_record_bytes)
        {
            self.out.truncate(start);
            self.fail(origin, fault);
            return Ok(());
        }
        self.note(origin, head.offset_delta, head.timestamp_delta);
        Ok(())
    }

    /// Writes whole records of the guest's. All records of one source stand or fall together.
    fn write_records(
        &mut self,
        first: u32,
        entries: impl Iterator<Item = RecordEntry>,
        declared: &std::ops::Range<usize>,
        memory: &[u8],
    ) {
        let mut declared = declared.clone();
        let mut source = None;
        let mut source_failed = false;
        let mut mark = self.mark();
        self.has_numbered = true;
        for entry in entries {
            let origin = first + entry.source;
            if source != Some(origin) {
                source = Some(origin);
                source_failed = self.is_declared(&mut declared, origin);
                mark = self.mark();
            }
            if source_failed {
                continue;
            }
            let written = match entry.target {
                0 => self.write_own(origin, entry.body, memory),
                target => self.write_routed(origin, target, entry.body, memory),
            };
            if let Err(fault) = written {
                source_failed = true;
                self.fall_back(mark);
                self.fail(origin, fault);
            }
        }
    }

    fn write_own(&mut self, origin: u32, body: Span, memory: &[u8]) -> Result<(), Fault> {
        if self.origins.len() >= BATCH_RECORDS_MAX {
            return Err(bad(format!("more records than `batch_records_max` ({BATCH_RECORDS_MAX})")));
        }
        let body = self.take(body, memory)?;
        self.check_room(body.len())?;
        let offset_delta = self.origins.len() as u32;
        let start = self.out.len();
        let written = put_record(&mut self.out, body, offset_delta).and_then(|timestamp_delta| {
            check_record(&self.out[start..], self.rules.max_record_bytes).map(|_| timestamp_delta)
        });
        match written {
            Ok(timestamp_delta) => {
                self.note(origin, offset_delta, timestamp_delta);
                Ok(())
            }
            Err(fault) => {
                self.out.truncate(start);
                Err(fault)
            }
        }
    }

    fn write_routed(&mut self, origin: u32, target: u16, body: Span, memory: &[u8]) -> Result<(), Fault> {
        let declared = self.rules.target_count;
        if usize::from(target) > declared {
            return Err(bad(format!("output is for target {target}, {declared} are declared")));
        }
        let body = self.take(body, memory)?;
        let mut encoded = Vec::with_capacity(body.len() + varint::I32_BYTES_MAX * 2);
        put_record(&mut encoded, body, 0)?;
        let record = check_record(&encoded, RECORD_BYTES_CEILING)?.to_record(&self.rules.header);
        if record.key.is_none() && self.rules.needs_key(target) {
            let text = format!("output for target {target} has no key, and that topic compacts by key");
            return Err(Fault::new(HostCode::KeyMissing, text));
        }
        self.routed.push(RoutedRecord { origin, target, record });
        Ok(())
    }

    /// Bytes the guest returned, if they are inside its memory and within what one batch may return.
    fn take<'m>(&mut self, span: Span, memory: &'m [u8]) -> Result<&'m [u8], Fault> {
        let bytes = span.of(memory).ok_or_else(|| bad("output points outside of the memory".to_owned()))?;
        self.returned_bytes += u64::from(span.length);
        if self.returned_bytes > self.rules.output_bytes {
            return Err(bad(format!("output of the batch is over `output_bytes` ({})", self.rules.output_bytes)));
        }
        Ok(bytes)
    }

    /// What comes out must be readable under everybody's budget for decompressed batches.
    fn check_room(&self, bytes: usize) -> Result<(), Fault> {
        if self.out.len() - HEADER_BYTES + bytes + 16 > DECOMPRESSED_BYTES_MAX {
            return Err(bad(format!("batch would be over `decompressed_bytes_max` ({DECOMPRESSED_BYTES_MAX})")));
        }
        Ok(())
    }

    #[inline]
    fn note(&mut self, origin: u32, offset_delta: u32, timestamp_delta: i64) {
        self.origins.push(origin);
        self.last_offset_delta = offset_delta;
        self.max_timestamp_delta = self.max_timestamp_delta.max(timestamp_delta);
    }

    fn mark(&self) -> Mark {
        Mark {
            out: self.out.len(),
            origins: self.origins.len(),
            routed: self.routed.len(),
            last_offset_delta: self.last_offset_delta,
            max_timestamp_delta: self.max_timestamp_delta,
        }
    }

    fn fall_back(&mut self, mark: Mark) {
        self.out.truncate(mark.out);
        self.origins.truncate(mark.origins);
        self.routed.truncate(mark.routed);
        self.last_offset_delta = mark.last_offset_delta;
        self.max_timestamp_delta = mark.max_timestamp_delta;
    }

    /// Ends the stage.
    pub(crate) fn finish(mut self) -> Result<Reframed, Unreadable> {
        if self.has_kept && self.has_numbered {
            self.number_anew()?;
        }
        if self.out.is_empty() {
            self.out = with_room(0);
        }
        let Reframer { out: roomy, origins, routed, failures, last_offset_delta, max_timestamp_delta, .. } = self;
        Ok(Reframed { roomy, origins, routed, failures, last_offset_delta, max_timestamp_delta })
    }

    /// Pieces of one batch answered in both ways: as in a batch that answered with whole records, these take the
    /// first offsets, in order.
    fn number_anew(&mut self) -> Result<(), Unreadable> {
        let room = with_room(self.out.len());
        let old = std::mem::replace(&mut self.out, room);
        let mut at = HEADER_BYTES;
        for offset_delta in 0..self.origins.len() as u32 {
            let head = scan::head(&old, at).ok_or(Unreadable)?;
            put_record(&mut self.out, &old[head.body..head.end], offset_delta).map_err(|_| Unreadable)?;
            self.last_offset_delta = offset_delta;
            at = head.end;
        }
        Ok(())
    }
}

/// Bytes that an answer's new values take at most, so that the section need not be moved while it grows.
fn new_bytes(output: &Output<'_>, output_bytes: u64) -> usize {
    let bytes = match output.decisions {
        Decisions::Patch { patches, .. } => {
            let length = |patch| if let Patch::Value(span) = patch { u64::from(span.length) } else { 0 };
            patches.iter().map(length).sum()
        }
        _ => 0,
    };
    // What is over the limit fails, and nothing of it is written.
    usize::try_from(bytes.min(output_bytes)).unwrap_or(0)
}

/// What happens to one record that is not replaced as a whole.
#[derive(Debug, Clone, Copy)]
enum Change {
    Keep,
    Drop,
    Null,
    Value(Span),
}

impl Change {
    const fn of(patch: Patch) -> Change {
        match patch {
            Patch::Unchanged => Change::Keep,
            Patch::Null => Change::Null,
            Patch::Value(span) => Change::Value(span),
        }
    }
}

/// Appends a record's body under another offset, its attributes (which have no meaning) cleared; returns its timestamp
/// delta. The rest of the body is not looked at.
fn put_record(out: &mut Vec<u8>, body: &[u8], offset_delta: u32) -> Result<i64, Fault> {
    let head = scan::head_of_body(body, 0, body.len()).ok_or_else(|| bad("output is not a record".to_owned()))?;
    let (timestamp, rest) = (&body[1..head.offset_at], &body[head.key_at..]);
    let offset_delta = offset_delta as i32;
    let body_bytes = 1 + timestamp.len() + varint::len_i32(offset_delta) + rest.len();
    let length = i32::try_from(body_bytes).map_err(|_| bad("output is not a record".to_owned()))?;
    varint::write_i32(out, length);
    out.push(0);
    out.extend_from_slice(timestamp);
    varint::write_i32(out, offset_delta);
    out.extend_from_slice(rest);
    Ok(head.timestamp_delta)
}

/// Reads back exactly what would be stored.
fn check_record(encoded: &[u8], max_record_bytes: usize) -> Result<protocol::RecordView<'_>, Fault> {
    let malformed = |error: &dyn std::fmt::Display| bad(format!("output is not a record: {error}"));
    let mut read = records(encoded);
    let record = match read.next() {
        Some(Ok(record)) => record,
        Some(Err(protocol::BatchError::MalformedRecord { what, .. })) => return Err(malformed(&what)),
        Some(Err(error)) => return Err(malformed(&error)),
        None => return Err(malformed(&"it is empty")),
    };
    match record.payload_bytes() {
        bytes if bytes > max_record_bytes => Err(too_large(bytes, max_record_bytes)),
        _ => Ok(record),
    }
}

fn bad(text: String) -> Fault {
    Fault::new(HostCode::BadOutput, text)
}

fn too_large(bytes: usize, limit: usize) -> Fault {
    Fault::new(
        HostCode::RecordTooLarge,
        format!("output record of {bytes} bytes is larger than `max_record_bytes` ({limit})"),
    )
}
