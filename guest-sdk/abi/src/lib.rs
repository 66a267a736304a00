//! The contract between the host and a guest: version 1 of the ABI, written once, used by both sides.
//!
//! Owns names, numbers and byte layouts, and the plain functions that encode and decode them. Never allocates, never
//! touches a guest's memory itself, and knows neither wasmtime nor a language of guests.
//!
//! A guest is a core wasm32 module that is called **once per batch**: in goes the batch's raw records section behind a
//! small header ([`input`]), out come decisions ([`output`]). All numbers are little-endian and unaligned.
//!
//! ```text
//! the host calls                              the guest exports
//!   once per instance   _initialize()            optional: run first (a WASI reactor's start)
//!                       weir_abi_version()       -> i32: ABI_VERSION, before anything else of weir's
//!                       weir_describe()          optional -> i64: a packed span of JSON (keys in `describe`)
//!                       weir_alloc(len)          -> i32: address of at least len bytes, 0 = refused
//!                       weir_init(ptr, len)      optional -> i32: 0 = configuration (JSON) taken, else refused
//!   per batch           weir_alloc(len)
//!                       weir_process(ptr, len)   -> i64: a packed span of output, < 0 = the whole batch failed
//!   after a trap        (reads weir_cursor)      optional global i32: which record was in hand
//! ```
//!
//! - What `weir_alloc` returned belongs to the host until the call it was asked for (`weir_init`, `weir_process`) is
//!   made, and to the guest from then on. The host asks again before every call and passes exactly that address; a
//!   guest may hand out the same buffer each time.
//! - A **packed span** is `address << 32 | length` ([`Span::pack`]). Addresses stay below 2 GiB, so it is never negative.
//! - Every **address**, in packed spans and inside an output, is counted from the start of the guest's memory. So an output can
//!   point into the input, which is how unchanged bytes travel without a copy. What it points to must stay as it is until
//!   the next call into the instance; pieces may overlap.
//! - Where a call fails (`weir_init` not 0, `weir_process` negative), the last line the guest logged at
//!   [`LogLevel::Error`] during it is the reason.
//! - `weir_cursor` comes in two forms: a *mutable* i32 global holds the record's index; an *immutable* i32 global holds
//!   the address of a u32 in memory that does (what LLVM's linker makes of an exported variable).
//! - The one import every guest has is `weir.log(level: i32, ptr: i32, len: i32)`: UTF-8, one line, levels of [`LogLevel`].
//!
//! Start at [`input::InputHeader`] and [`output::Output`].
#![no_std]

pub mod input;
pub mod output;

/// The version `weir_abi_version` returns.
pub const ABI_VERSION: i32 = 1;

/// Names of what a guest exports.
pub mod export {
    /// Its linear memory.
    pub const MEMORY: &str = "memory";
    /// `() -> i32`, [`ABI_VERSION`](super::ABI_VERSION).
    pub const ABI_VERSION: &str = "weir_abi_version";
    /// `(len: i32) -> i32`, an input buffer.
    pub const ALLOC: &str = "weir_alloc";
    /// `(ptr: i32, len: i32) -> i64`, one batch.
    pub const PROCESS: &str = "weir_process";
    /// Optional `(ptr: i32, len: i32) -> i32`, the configuration.
    pub const INIT: &str = "weir_init";
    /// Optional `() -> i64`, what the plugin says of itself.
    pub const DESCRIBE: &str = "weir_describe";
    /// Optional global i32, the record in hand.
    pub const CURSOR: &str = "weir_cursor";
    /// Optional `()`, run before everything else.
    pub const INITIALIZE: &str = "_initialize";
}

/// Names of what a guest may import.
pub mod import {
    /// The module all of weir's own imports are in.
    pub const MODULE: &str = "weir";
    /// `(level: i32, ptr: i32, len: i32)`.
    pub const LOG: &str = "log";
}

/// Keys of the JSON object that `weir_describe` returns; all are optional.
pub mod describe {
    /// One line for people: what the plugin does.
    pub const DESCRIPTION: &str = "description";
    /// The plugin's version.
    pub const VERSION: &str = "version";
    /// A JSON Schema of the configuration.
    pub const CONFIG: &str = "config";
    /// An array of strings: what it wants to be granted (none in version 1).
    pub const CAPABILITIES: &str = "capabilities";
    /// An array of strings: what its targets 1, 2, .. stand for.
    pub const TARGETS: &str = "targets";
}

/// Failure codes from here on are the host's; below, each plugin has its own.
pub const HOST_CODES_START: u16 = 0xff00;

/// Why the host failed a record, where the guest did not say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum HostCode {
    /// The guest trapped.
    Trap = 0xff00,
    /// It ran over its deadline.
    Deadline = 0xff01,
    /// Its output breaks the contract.
    BadOutput = 0xff02,
    /// `weir_process` returned a negative number.
    BatchFailed = 0xff03,
    /// `weir_alloc` refused the input.
    AllocRefused = 0xff04,
    /// What it made of the record is larger than the topic takes.
    RecordTooLarge = 0xff05,
    /// It has no key, and the topic it is for keeps the newest record of each key.
    KeyMissing = 0xff06,
    /// The transform kept failing, and was not called.
    BreakerOpen = 0xff07,
}

/// How much a logged line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Something failed; inside `weir_init` and `weir_process`, the reason of their failure.
    Error = 1,
    /// Odd, but handled.
    Warn = 2,
    /// Worth knowing once.
    Info = 3,
    /// For the plugin's author.
    Debug = 4,
    /// For the plugin's author, in detail.
    Trace = 5,
}

impl LogLevel {
    /// The level of a number; one out of range is taken as the nearest.
    #[must_use]
    pub const fn from_number(number: i32) -> LogLevel {
        match number {
            ..=1 => LogLevel::Error,
            2 => LogLevel::Warn,
            3 => LogLevel::Info,
            4 => LogLevel::Debug,
            5.. => LogLevel::Trace,
        }
    }
}

/// A piece of a guest's memory, as the guest names it: not to be believed before [`Span::of`] has checked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first byte, from the start of the memory.
    pub address: u32,
    /// Its length in bytes.
    pub length: u32,
}

impl Span {
    /// As `weir_process` and `weir_describe` return it.
    #[must_use]
    pub const fn pack(self) -> i64 {
        ((self.address as i64) << 32) | self.length as i64
    }

    /// What a guest returned; nothing where it is negative, which says that the call failed.
    #[must_use]
    pub const fn unpack(packed: i64) -> Option<Span> {
        if packed < 0 { None } else { Some(Span { address: (packed >> 32) as u32, length: packed as u32 }) }
    }

    /// The bytes it names, if all of them are inside `memory`.
    #[must_use]
    pub fn of(self, memory: &[u8]) -> Option<&[u8]> {
        // In 64 bits, where the sum cannot wrap. Clamped to `usize`, a sum beyond it is beyond the memory as well.
        let end = u64::from(self.address) + u64::from(self.length);
        memory.get(usize::try_from(self.address).ok()?..usize::try_from(end).ok()?)
    }
}

/// Little-endian fields at fixed places; `None` where the bytes end before.
pub(crate) mod field {
    pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.get(at..)?.first_chunk::<N>().copied()
    }

    pub(crate) fn u16(bytes: &[u8], at: usize) -> Option<u16> {
        array(bytes, at).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(bytes: &[u8], at: usize) -> Option<u32> {
        array(bytes, at).map(u32::from_le_bytes)
    }

    pub(crate) fn i64(bytes: &[u8], at: usize) -> Option<i64> {
        array(bytes, at).map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_survives_packing() {
        let span = Span { address: 0x7fff_ffff, length: 0xffff_ffff };
        assert!(span.pack() >= 0);
        assert_eq!(Span::unpack(span.pack()), Some(span));
        assert_eq!(Span::unpack(-1), None);
    }

    #[test]
    fn a_span_outside_the_memory_is_nothing() {
        let memory = [7; 10];
        assert_eq!(Span { address: 8, length: 2 }.of(&memory), Some(&[7, 7][..]));
        assert_eq!(Span { address: 10, length: 0 }.of(&memory), Some(&[][..]));
        assert_eq!(Span { address: 8, length: 3 }.of(&memory), None);
        assert_eq!(Span { address: 11, length: 0 }.of(&memory), None);
        assert_eq!(Span { address: u32::MAX, length: u32::MAX }.of(&memory), None);
    }

    #[test]
    fn every_number_is_a_level() {
        assert_eq!(LogLevel::from_number(-3), LogLevel::Error);
        assert_eq!(LogLevel::from_number(99), LogLevel::Trace);
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            assert_eq!(LogLevel::from_number(level as i32), level);
        }
    }
}
