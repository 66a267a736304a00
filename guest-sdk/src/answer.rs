//! What a guest decides, gathered while the records pass and laid out as the ABI wants it.
//!
//! Owns the encoding of outputs and the bytes they point to. The decisions are written in their place at once; only addresses
//! are filled in at the end, because the bytes may move while they grow.
//!
//! Invariants
//! - An address in an unfinished output counts from the start of `bytes`, or of the input where an entry says so.
//! - The cheapest kind that says it is returned: a patch that changes nothing is a bitmap, one that keeps all is KEEP_ALL.

use std::{fmt, io};

use abi::{
    Span,
    output::{ENTRY_LEN, FailureEntry, HEADER_LEN, NULL, PATCH_ENTRY_LEN, Patch, RecordEntry, UNCHANGED},
    output::{bitmap_len, encode_header, encode_patch, kind},
};

use crate::{
    Failure, Header, Headers, Record,
    record::{push_nullable_bytes, push_varint},
};

/// What becomes of a record in a `filter_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is; what was written is forgotten.
    Keep,
    /// Its value becomes what was written.
    Replace,
    /// Its value becomes null.
    Null,
    /// It goes.
    Drop,
}

/// The new value of a record, written piece by piece.
#[derive(Debug)]
pub struct NewValue<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> NewValue<'a> {
    fn new(bytes: &'a mut Vec<u8>) -> Self {
        NewValue { start: bytes.len(), bytes }
    }

    /// Adds bytes at its end.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds text at its end.
    #[inline]
    pub fn push_str(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    /// Adds a JSON string at its end: the text in quotes, escaped.
    pub fn push_json_str(&mut self, text: &str) {
        crate::json::push_str(self.bytes, text);
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl io::Write for NewValue<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for NewValue<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

/// A record of a guest's own making.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// 0 for the own topic, else the number of a declared target.
    pub target: u16,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Headers taken over from an input record.
    pub headers: Headers<'a>,
    /// More headers, behind those.
    pub more_headers: &'a [Header<'a>],
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp: i64,
}

impl<'a> From<&Record<'a>> for NewRecord<'a> {
    /// The same record, on the own topic.
    fn from(record: &Record<'a>) -> Self {
        NewRecord {
            target: 0,
            key: record.key(),
            value: record.value(),
            headers: record.headers(),
            more_headers: &[],
            timestamp: record.timestamp(),
        }
    }
}

/// What takes a record's place in a `flat_map`.
#[derive(Debug)]
pub struct Records<'a> {
    answer: &'a mut Answer,
    source: &'a Record<'a>,
}

impl Records<'_> {
    /// The record itself.
    pub fn keep(&mut self) {
        self.route(0);
    }

    /// The record itself, to a declared target; 0 is the own topic.
    pub fn route(&mut self, target: u16) {
        let (address, length) = self.source.body();
        let flags = Answer::IN_INPUT;
        self.answer.push_entry(RecordEntry {
            source: self.source.index(),
            target,
            flags,
            body: Span { address, length },
        });
    }

    /// The record with another value.
    pub fn value(&mut self, value: &[u8]) {
        self.push(&NewRecord { value: Some(value), ..NewRecord::from(self.source) });
    }

    /// Any record.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        let bytes = &mut self.answer.bytes;
        let start = bytes.len();
        bytes.push(0); // attributes
        push_varint(bytes, record.timestamp.wrapping_sub(self.source.base_timestamp()));
        push_varint(bytes, 0); // the host gives it its offset
        push_nullable_bytes(bytes, record.key);
        push_nullable_bytes(bytes, record.value);
        let (count, headers) = record.headers.split();
        push_varint(bytes, i64::from(count) + record.more_headers.len() as i64);
        bytes.extend_from_slice(headers);
        for header in record.more_headers {
            push_nullable_bytes(bytes, Some(header.name));
            push_nullable_bytes(bytes, header.value);
        }
        let body = Span { address: start as u32, length: (bytes.len() - start) as u32 };
        let source = self.source.index();
        self.answer.push_entry(RecordEntry { source, target: record.target, flags: 0, body });
    }
}

/// Where the two buffers lie that addresses point into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bases {
    pub(crate) input: u32,
    pub(crate) bytes: u32,
}

/// The output of one call, reused by the next.
#[derive(Debug)]
pub struct Answer {
    /// Header, then bitmap and patches, or entries.
    output: Vec<u8>,
    /// New values, new records, texts of failures.
    bytes: Vec<u8>,
    failures: Vec<FailureEntry>,
    record_count: u32,
    kept_count: u32,
    is_changed: bool,
}

impl Answer {
    /// In an unfinished entry of RECORDS: its address counts from the start of the input.
    const IN_INPUT: u16 = 1;

    pub(crate) const fn new() -> Answer {
        Answer {
            output: Vec::new(),
            bytes: Vec::new(),
            failures: Vec::new(),
            record_count: 0,
            kept_count: 0,
            is_changed: false,
        }
    }

    fn begin(&mut self, record_count: u32, body_len: usize) {
        self.output.clear();
        self.output.resize(HEADER_LEN + body_len, 0);
        self.bytes.clear();
        self.failures.clear();
        self.record_count = record_count;
        self.kept_count = 0;
        self.is_changed = false;
    }

    /// Begins an answer that keeps or drops.
    pub(crate) fn begin_bitmap(&mut self, record_count: u32) {
        self.begin(record_count, bitmap_len(record_count));
    }

    /// Begins an answer of whole records.
    pub(crate) fn begin_records(&mut self, record_count: u32) {
        self.begin(record_count, 0);
    }

    /// Keeps a record as it is, in an answer that patches nothing.
    #[inline(always)]
    pub(crate) fn keep_bit(&mut self, record: u32) {
        self.output[HEADER_LEN + record as usize / 8] |= 1 << (record % 8);
        self.kept_count += 1;
    }

    /// Fails a record.
    #[cold]
    pub(crate) fn fail(&mut self, record: u32, failure: &Failure) {
        let text = Span { address: self.bytes.len() as u32, length: failure.text().len() as u32 };
        self.bytes.extend_from_slice(failure.text().as_bytes());
        self.failures.push(FailureEntry { record, code: failure.code(), text });
    }

    fn keep_patched(&mut self, record: u32, patch: Patch) {
        self.keep_bit(record);
        self.output.extend_from_slice(&encode_patch(patch));
        self.is_changed |= patch != Patch::Unchanged;
    }

    /// Runs a function that may write a new value, and does what it says.
    #[inline(always)]
    pub(crate) fn with_new_value(
        &mut self,
        record: u32,
        function: impl FnOnce(&mut NewValue<'_>) -> Result<Verdict, Failure>,
    ) {
        let start = self.bytes.len();
        let verdict = function(&mut NewValue::new(&mut self.bytes));
        if verdict != Ok(Verdict::Replace) {
            self.bytes.truncate(start);
        }
        match verdict {
            Ok(Verdict::Keep) => self.keep_patched(record, Patch::Unchanged),
            Ok(Verdict::Null) => self.keep_patched(record, Patch::Null),
            Ok(Verdict::Replace) => {
                let length = (self.bytes.len() - start) as u32;
                self.keep_patched(record, Patch::Value(Span { address: start as u32, length }));
            }
            Ok(Verdict::Drop) => {}
            Err(failure) => self.fail(record, &failure),
        }
    }

    /// Runs a function that pushes records; what a failing one pushed is forgotten.
    #[inline(always)]
    pub(crate) fn with_records(
        &mut self,
        source: &Record<'_>,
        function: impl FnOnce(&mut Records<'_>) -> Result<(), Failure>,
    ) {
        let (entries_end, bytes_end) = (self.output.len(), self.bytes.len());
        if let Err(failure) = function(&mut Records { answer: self, source }) {
            self.output.truncate(entries_end);
            self.bytes.truncate(bytes_end);
            self.fail(source.index(), &failure);
        }
    }

    fn push_entry(&mut self, entry: RecordEntry) {
        self.output.extend_from_slice(&entry.encode());
    }

    /// Where the bytes lie that addresses will count from; they do not move any more.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lays out an answer that keeps or drops, and may patch.
    pub(crate) fn finish_bitmap(&mut self, bases: Bases) -> &[u8] {
        let patches_at = HEADER_LEN + bitmap_len(self.record_count);
        let kind = if self.is_changed {
            for patch in self.output[patches_at..].as_chunks_mut::<PATCH_ENTRY_LEN>().0 {
                let [a0, a1, a2, a3, l0, l1, l2, l3] = *patch;
                if !matches!(u32::from_le_bytes([l0, l1, l2, l3]), UNCHANGED | NULL) {
                    let address = u32::from_le_bytes([a0, a1, a2, a3]) + bases.bytes;
                    patch[..4].copy_from_slice(&address.to_le_bytes());
                }
            }
            kind::PATCH
        } else if self.kept_count == self.record_count {
            self.output.truncate(HEADER_LEN);
            kind::KEEP_ALL
        } else if self.kept_count == 0 {
            self.output.truncate(HEADER_LEN);
            kind::DROP_ALL
        } else {
            self.output.truncate(patches_at);
            kind::BITMAP
        };
        self.finish(kind, self.record_count, bases)
    }

    /// Lays out an answer of whole records.
    pub(crate) fn finish_records(&mut self, bases: Bases) -> &[u8] {
        let entries = self.output[HEADER_LEN..].as_chunks_mut::<ENTRY_LEN>().0;
        let count = entries.len() as u32;
        for entry in entries {
            let mut decoded = RecordEntry::decode(entry);
            let base = if decoded.flags == Self::IN_INPUT { bases.input } else { bases.bytes };
            decoded.body.address += base;
            decoded.flags = 0;
            *entry = decoded.encode();
        }
        self.finish(kind::RECORDS, count, bases)
    }

    fn finish(&mut self, kind: u32, count: u32, bases: Bases) -> &[u8] {
        self.output[..HEADER_LEN].copy_from_slice(&encode_header(kind, count));
        if !self.failures.is_empty() {
            self.output.extend_from_slice(&(self.failures.len() as u32).to_le_bytes());
            for failure in &mut self.failures {
                failure.text.address += bases.bytes;
                self.output.extend_from_slice(&failure.encode());
            }
        }
        &self.output
    }
}
