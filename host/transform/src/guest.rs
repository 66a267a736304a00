//! What the host keeps for one instance while it runs: its limits, its log, and the place in the log of records that
//! its clock and its randomness are taken from.
//!
//! Owns the data behind the host functions. Never reads a real clock: see [`Place`].

use std::sync::Arc;

use bytes::Bytes;
use protocol::limits::{GUEST_LOG_LINES_PER_CALL_MAX, GUEST_TEXT_BYTES_MAX, PLUGIN_TABLE_ELEMENTS_MAX};
use wasmtime::{AsContextMut, Global, Memory, ResourceLimiter, StoreContextMut, Val};

use crate::{
    clock,
    deadline::{Allowance, Deadline, Expired, Now, Ticks},
    fault::cut_text,
    scan,
    slots::Turn,
    usage::{HeldByInstance, LogRate, Usage},
};

/// The data of an instance's store.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) deadline: Deadline,
    pub(crate) log: Log,
    pub(crate) place: Place,
    pub(crate) memory: Option<Memory>,
    pub(crate) cursor: Cursor,
    /// While it runs a batch.
    pub(crate) turn: Option<Turn>,
    memory_bytes_max: usize,
    held: Option<HeldByInstance>,
    ticks: Ticks,
    /// The tick at which the deadline was last looked at.
    tick_seen: u64,
}

impl Guest {
    /// For an instance called `name` in the log; what it uses is entered there.
    pub(crate) fn new(name: &str, memory_bytes_max: u64, ticks: Ticks, usage: Option<&Usage>) -> Guest {
        let rate = usage.map(|usage| usage.log_rate.clone());
        Guest {
            deadline: Deadline::default(),
            log: Log { name: name.to_owned(), rate, ..Log::default() },
            place: Place::default(),
            memory: None,
            cursor: Cursor::None,
            turn: None,
            memory_bytes_max: usize::try_from(memory_bytes_max).unwrap_or(usize::MAX),
            held: usage.map(|usage| HeldByInstance::new(&usage.held)),
            ticks,
            tick_seen: 0,
        }
    }

    /// Makes it ready for one call.
    pub(crate) fn arm(&mut self, allowance: Allowance) {
        self.deadline.arm(allowance);
        self.tick_seen = self.ticks.count();
        self.log.begin_call();
    }

    fn tick(&mut self, record: Option<u32>) -> Result<(), Expired> {
        let now = Now { cpu: clock::thread_cpu(), wall: clock::wall(), record };
        self.deadline.check(now)?;
        if let Some(turn) = &mut self.turn {
            let waited = turn.tick(now.cpu, now.wall);
            self.deadline.waited(waited);
        }
        Ok(())
    }

    /// The tick of a host function: compiled code that calls one after the other has none of its own.
    pub(crate) fn tick_of_host(&mut self) -> Result<(), Expired> {
        let tick = self.ticks.count();
        if tick == self.tick_seen {
            return Ok(());
        }
        self.tick_seen = tick;
        self.tick(None)
    }
}

/// A tick while it runs: whether it may go on, now or in its next turn.
pub(crate) fn tick(mut context: StoreContextMut<'_, Guest>) -> Result<(), Expired> {
    let cursor = context.data().cursor;
    let record = cursor.read(&mut context);
    context.data_mut().tick(record)
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory_bytes_max;
        if let (true, Some(held)) = (fits, &mut self.held) {
            held.memory_is(desired as u64);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired as u64 <= PLUGIN_TABLE_ELEMENTS_MAX)
    }
}

/// Where a guest says which record it has in hand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cursor {
    /// Nowhere.
    None,
    /// In a mutable global.
    Global(Global),
    /// In its memory, at this address.
    Address(u32),
}

impl Cursor {
    /// The index it names, which is a hint and nothing more.
    pub(crate) fn read(self, mut store: impl AsContextMut<Data = Guest>) -> Option<u32> {
        match self {
            Cursor::None => None,
            Cursor::Global(global) => match global.get(&mut store) {
                Val::I32(index) => Some(index.cast_unsigned()),
                _ => None,
            },
            Cursor::Address(address) => {
                let context = store.as_context();
                let memory = context.data().memory?.data(&context);
                let bytes = memory.get(usize::try_from(address).ok()?..)?.first_chunk::<4>()?;
                Some(u32::from_le_bytes(*bytes))
            }
        }
    }
}

/// What the guest said in the call at hand.
#[derive(Debug, Default)]
pub(crate) struct Log {
    name: String,
    /// What it may log over all calls; `None` at upload, when it is called a few times.
    rate: Option<Arc<LogRate>>,
    lines: usize,
    /// As the guest wrote it, cut to what a text may have: most are written over before anybody reads them.
    last_error: Option<Vec<u8>>,
    /// Standard output and error of WASI guests, up to the next line end.
    streams: [Vec<u8>; 2],
}

impl Log {
    fn begin_call(&mut self) {
        self.lines = 0;
        self.last_error = None;
    }

    /// Passes one line on, within the limits of a call; errors are kept as the reason of a failure.
    pub(crate) fn line(&mut self, level: abi::LogLevel, text: &[u8]) {
        let is_error = level == abi::LogLevel::Error;
        self.lines = self.lines.saturating_add(1);
        let heard = self.lines <= GUEST_LOG_LINES_PER_CALL_MAX;
        if heard && self.rate.as_ref().is_none_or(|rate| rate.pays(clock::wall())) {
            self.emit(level, &printable(text));
        }
        if is_error {
            let last = self.last_error.get_or_insert_default();
            last.clear();
            last.extend_from_slice(&text[..text.len().min(GUEST_TEXT_BYTES_MAX)]);
        }
    }

    fn emit(&self, level: abi::LogLevel, text: &str) {
        let transform = self.name.as_str();
        match level {
            abi::LogLevel::Error => tracing::error!(target: "weir::guest", transform, "{text}"),
            abi::LogLevel::Warn => tracing::warn!(target: "weir::guest", transform, "{text}"),
            abi::LogLevel::Info => tracing::info!(target: "weir::guest", transform, "{text}"),
            abi::LogLevel::Debug => tracing::debug!(target: "weir::guest", transform, "{text}"),
            abi::LogLevel::Trace => tracing::trace!(target: "weir::guest", transform, "{text}"),
        }
    }

    /// Takes what a WASI guest writes to standard output (`stream` 0) or error (1), whole lines at a time.
    pub(crate) fn write(&mut self, stream: usize, bytes: &[u8]) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        // What is behind the last line end waits for its own.
        let rest = lines.next_back().unwrap_or_default();
        for line in lines {
            self.append(stream, line);
            self.flush(stream);
        }
        self.append(stream, rest);
    }

    fn append(&mut self, stream: usize, text: &[u8]) {
        let room = GUEST_TEXT_BYTES_MAX - self.streams[stream].len();
        self.streams[stream].extend_from_slice(&text[..text.len().min(room)]);
    }

    fn flush(&mut self, stream: usize) {
        let mut line = std::mem::take(&mut self.streams[stream]);
        if !line.is_empty() {
            self.line(if stream == 0 { abi::LogLevel::Info } else { abi::LogLevel::Error }, &line);
        }
        line.clear();
        self.streams[stream] = line;
    }

    /// Why the call failed, in the guest's own words; lines without an end come out now.
    pub(crate) fn end_call(&mut self) -> Option<String> {
        self.flush(0);
        self.flush(1);
        let hidden = self.lines.saturating_sub(GUEST_LOG_LINES_PER_CALL_MAX);
        if hidden > 0 {
            let transform = self.name.as_str();
            if let Some(rate) = &self.rate {
                rate.cut(hidden as u64);
            }
            if self.rate.as_ref().is_none_or(|rate| rate.pays(clock::wall())) {
                tracing::warn!(target: "weir::guest", transform, hidden, "more lines than `guest_log_lines_per_call_max`");
            }
        }
        self.last_error.take().map(|text| printable(&text))
    }

    /// Whether there is anything for [`Log::end_call`] to do: a silent guest costs nothing.
    pub(crate) fn is_silent(&self) -> bool {
        self.lines == 0 && self.streams.iter().all(Vec::is_empty)
    }
}

/// A guest's text as it may stand in a log: cut to the limit, valid UTF-8, one line, no escapes for terminals.
pub(crate) fn printable(text: &[u8]) -> String {
    cut_text(one_line(&String::from_utf8_lossy(&text[..text.len().min(GUEST_TEXT_BYTES_MAX)])))
}

/// Control characters become spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The place in the log of records that a call is about: the source of a guest's time and chance.
///
/// So the same record gives the same result in every run: the clock is the timestamp of the record in hand (of the
/// batch where the guest has no `weir_cursor`), randomness is seeded by transform, partition and that record's offset.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) seed: u64,
    pub(crate) partition: u32,
    pub(crate) base_offset: u64,
    pub(crate) base_timestamp: i64,
    /// The input's records, to find the one in hand. Given back when the call ends.
    pub(crate) section: Bytes,
    /// Where the walk to the record in hand has come to: its index and its position.
    walked: (u32, usize),
    /// The offset that randomness was last drawn for, and the generator's state.
    drawn: Option<(u64, u64)>,
}

impl Place {
    /// Moves to another batch.
    pub(crate) fn move_to(&mut self, partition: u32, base_offset: u64, base_timestamp: i64, section: Bytes) {
        *self = Place { seed: self.seed, partition, base_offset, base_timestamp, section, walked: (0, 0), drawn: None };
    }

    /// Lets go of the records.
    pub(crate) fn leave(&mut self) {
        self.section = Bytes::new();
    }

    /// Milliseconds since 1970, as far as the guest knows.
    pub(crate) fn now_ms(&mut self, cursor: Option<u32>) -> i64 {
        match self.in_hand(cursor) {
            Some(record) => self.base_timestamp.wrapping_add(record.timestamp_delta),
            None => self.base_timestamp,
        }
    }

    /// Fills `out` with the next bytes of the randomness that belongs to the record in hand.
    pub(crate) fn draw(&mut self, cursor: Option<u32>, out: &mut [u8]) {
        let delta = self.in_hand(cursor).map_or(0, |record| record.offset_delta);
        let offset = self.base_offset.wrapping_add(delta.into());
        let mut state = match self.drawn {
            Some((of, state)) if of == offset => state,
            _ => mix(self.seed ^ mix(u64::from(self.partition) ^ mix(offset))),
        };
        for chunk in out.chunks_mut(8) {
            state = state.wrapping_add(GOLDEN);
            chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
        }
        self.drawn = Some((offset, state));
    }

    /// Finds the record of an index; going forward, as guests do, takes one walk over the section in all.
    fn in_hand(&mut self, cursor: Option<u32>) -> Option<scan::Head> {
        let wanted = cursor?;
        let (mut index, mut at) = if self.walked.0 <= wanted { self.walked } else { (0, 0) };
        while index < wanted {
            at = scan::next(&self.section, at)?;
            index += 1;
        }
        self.walked = (index, at);
        scan::head(&self.section, at)
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finisher: every bit of the input changes half of the output's.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A seed from a name, the same on every host (FNV-1a).
pub(crate) fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
