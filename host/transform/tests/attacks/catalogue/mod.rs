//! The catalogue of hostile modules: what each is, what it is given to do, and how it must end.
//!
//! Owns the modules, which are made by code, and the outcome that is asked for. Runs nothing: the tests of this crate
//! run them through its public face, the tests of the binary upload them to a real broker.
//!
//! Start at [`all`] and [`Attack`].

mod bombs;
mod build;
mod cpu;
mod memory;
mod output;
mod stack;
mod stale;
mod surface;

use abi::HostCode;
use protocol::TransformLimits;

/// What an attack is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Cpu,
    Memory,
    Stack,
    CompileBomb,
    Surface,
    Output,
    StaleMemory,
    Cursor,
}

/// One hostile module.
#[derive(Debug, Clone)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) wasm: Vec<u8>,
    /// What it is granted when it is deployed.
    pub(crate) limits: TransformLimits,
    /// The values of one batch.
    pub(crate) records: Vec<Vec<u8>>,
    /// How many such batches it is given.
    pub(crate) batches: u32,
    pub(crate) end: End,
}

/// How an attack ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// At upload, with this kind of error, whose text has these words in it.
    Refused(Refusal, &'static str),
    /// When it is deployed: its instance fails in this way.
    NotDeployed(HostCode),
    /// It runs: these records of each batch fail, with these codes; the others are kept.
    Fails(Vec<(u32, u16)>),
}

/// The kinds of errors at upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotWasm,
    Component,
    Invalid,
    OverLimit,
    ImportRefused,
    Link,
    ExportMissing,
    ExportType,
    AbiVersion,
    Describe,
    Compile,
    Start(HostCode),
}

/// The deadline that attacks are given: long enough for honest work in a slow build, short enough to wait for.
const DEADLINE_MS: u32 = 50;

impl Attack {
    fn new(name: &'static str, class: Class, wasm: Vec<u8>, end: End) -> Attack {
        let records = (0..4).map(|index| format!("record {index}").into_bytes()).collect();
        let limits = TransformLimits {
            deadline_ms: DEADLINE_MS,
            record_deadline_ms: 2_000,
            failure_ms: 16 * DEADLINE_MS,
            ..TransformLimits::default()
        };
        Attack { name, class, wasm, limits, records, batches: 1, end }
    }

    /// Refused at upload.
    fn refused(name: &'static str, class: Class, wasm: Vec<u8>, refusal: Refusal, words: &'static str) -> Attack {
        Attack::new(name, class, wasm, End::Refused(refusal, words))
    }

    /// Refused when it is deployed.
    fn not_deployed(name: &'static str, class: Class, wasm: Vec<u8>, code: HostCode) -> Attack {
        Attack::new(name, class, wasm, End::NotDeployed(code))
    }

    /// Every record fails.
    fn fails(name: &'static str, class: Class, wasm: Vec<u8>, code: HostCode) -> Attack {
        Attack::new(name, class, wasm, End::Fails((0..4).map(|index| (index, code as u16)).collect()))
    }

    /// Every record is kept.
    fn harmless(name: &'static str, class: Class, wasm: Vec<u8>) -> Attack {
        Attack::new(name, class, wasm, End::Fails(Vec::new()))
    }

    /// Gives it one record a batch, which ends as the first of all did.
    fn with_one_record(mut self) -> Attack {
        self.records.truncate(1);
        if let End::Fails(failed) = &mut self.end {
            failed.truncate(1);
        }
        self
    }

    /// Gives it these values, of which these fail.
    fn with_records(mut self, records: &[&str], failed: &[(u32, u16)]) -> Attack {
        self.records = records.iter().map(|value| value.as_bytes().to_vec()).collect();
        self.end = End::Fails(failed.to_vec());
        self
    }

    fn with_batches(mut self, batches: u32) -> Attack {
        self.batches = batches;
        self
    }

    fn with_limits(mut self, change: impl FnOnce(&mut TransformLimits)) -> Attack {
        change(&mut self.limits);
        self
    }
}

/// All attacks, class by class.
pub(crate) fn all() -> Vec<Attack> {
    let classes = [
        cpu::attacks(),
        memory::attacks(),
        stack::attacks(),
        bombs::attacks(),
        surface::attacks(),
        output::attacks(),
        stale::attacks(),
    ];
    classes.into_iter().flatten().collect()
}
