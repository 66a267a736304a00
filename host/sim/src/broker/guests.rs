//! The plugins of the simulation: small modules, and beside each what it does, in Rust.
//!
//! Owns both sides, so that the oracle knows what a pipeline makes of a batch without running one. What a guest does with
//! a record is written in the first bytes of its value ([`Marks`]); all of it is decided by the host's rules from there.
//!
//! Start at [`run_pipeline`].

use std::{collections::BTreeSet, sync::OnceLock};

use bytes::Bytes;
use protocol::{Books, OnError, PluginHash, PluginName, Record, TopicName, TransformName, TransformSpec};
use sha2::{Digest as _, Sha256};

/// Code of a failure that the guests say themselves.
const FAILED: u16 = 7;

/// Codes that the host gives: the guest trapped, its output is not what it may be.
pub(super) const TRAPPED: u16 = 0xff00;
const BAD_OUTPUT: u16 = 0xff02;

/// The bytes that guests look at, in front of every value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Verdicts of the two plugins that take them: `k`, `d`, `f`, `r`, `m` or `t`.
    pub(super) verdicts: [u8; 2],
    /// Whether `sift` drops it.
    pub(super) sifted: bool,
}

impl Marks {
    /// The bytes.
    pub(super) fn bytes(self) -> [u8; 4] {
        [self.verdicts[0], self.verdicts[1], b'.', if self.sifted { b's' } else { b'.' }]
    }
}

/// Where `mark` writes, and where `sift` reads.
const MARKED_AT: usize = 2;
const SIFTED_AT: usize = 3;

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Keep,
    Verdicts { at: usize },
    Mark,
    Sift,
}

/// A module.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) name: PluginName,
    pub(super) wasm: Bytes,
    pub(super) hash: PluginHash,
    work: Work,
}

/// All modules there are.
pub(super) fn all() -> &'static [Guest] {
    static GUESTS: OnceLock<Vec<Guest>> = OnceLock::new();
    GUESTS.get_or_init(|| {
        let verdicts = include_str!("guests/verdicts.wat");
        vec![
            guest("keep", include_str!("guests/keep.wat"), Work::Keep),
            guest("first", &at(verdicts, 0), Work::Verdicts { at: 0 }),
            guest("second", &at(verdicts, 1), Work::Verdicts { at: 1 }),
            guest("mark", &at(include_str!("guests/mark.wat"), MARKED_AT), Work::Mark),
            guest("sift", &at(include_str!("guests/sift.wat"), SIFTED_AT), Work::Sift),
        ]
    })
}

fn at(body: &str, at: usize) -> String {
    body.replace("{at}", &at.to_string())
}

fn guest(name: &str, body: &str, work: Work) -> Guest {
    let text = format!("(module\n{}\n{body})", include_str!("guests/prelude.wat"));
    let wasm = Bytes::from(wat::parse_str(text).expect("the module is written here"));
    let hash = PluginHash(Sha256::digest(&wasm).into());
    Guest { name: PluginName::new(name).expect("a name"), wasm, hash, work }
}

/// The module of a hash.
pub(super) fn of_hash(hash: PluginHash) -> Option<&'static Guest> {
    all().iter().find(|guest| guest.hash == hash)
}

/// A record of the own topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    /// Offset, from the batch's base offset on.
    pub(super) delta: u32,
    /// Index of the record it comes from.
    pub(super) source: u32,
    pub(super) value: Bytes,
}

/// A record that a transform failed on, and that became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) source: u32,
    pub(super) transform: TransformName,
    pub(super) code: u16,
}

/// What a pipeline makes of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Outputs {
    pub(super) own: Vec<Own>,
    /// Offsets it covers.
    pub(super) span: u64,
    /// Target, index of the record it comes from, value; in order.
    pub(super) routed: Vec<(TopicName, u32, Bytes)>,
    pub(super) letters: Vec<Letter>,
    /// Index and code, in order.
    pub(super) rejects: Vec<(u32, u16)>,
    pub(super) books: Books,
}

/// A transform with `on_error = pause` failed: nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paused;

/// A batch on its way.
struct Run<'a> {
    records: Vec<Own>,
    /// Whether each record is still the one of its own index: no stage has changed the batch.
    is_first_change: bool,
    failed: BTreeSet<u32>,
    letters: Vec<Letter>,
    rejects: Vec<(u32, u16)>,
    routed: Vec<(&'a TopicName, u32, Bytes)>,
}

/// What the transforms make of these records.
///
/// # Panics
/// When a transform runs a module that is none of [`all`].
pub(super) fn run_pipeline(specs: &[TransformSpec], records: &[Record]) -> Result<Outputs, Paused> {
    let own = |(index, record): (u32, &Record)| Own {
        delta: index,
        source: index,
        value: record.value.clone().unwrap_or_default(),
    };
    let mut run = Run {
        records: (0..).zip(records).map(own).collect(),
        is_first_change: true,
        failed: BTreeSet::new(),
        letters: Vec::new(),
        rejects: Vec::new(),
        routed: Vec::new(),
    };
    for spec in specs {
        if run.records.is_empty() {
            break;
        }
        let guest = of_hash(spec.plugin_hash).expect("only modules of the simulation are uploaded");
        run.stage(spec, guest.work)?;
    }
    Ok(run.close(records.len() as u32))
}

impl<'a> Run<'a> {
    fn stage(&mut self, spec: &'a TransformSpec, work: Work) -> Result<(), Paused> {
        match work {
            Work::Keep => {}
            Work::Verdicts { at } => self.judge(spec, at)?,
            Work::Mark => {
                for record in &mut self.records {
                    let mut value = record.value.to_vec();
                    value[MARKED_AT] = b'R';
                    record.value = value.into();
                }
                self.is_first_change = false;
            }
            Work::Sift => {
                let before = self.records.len();
                self.records.retain(|record| record.value[SIFTED_AT] != b's');
                // A bitmap that keeps all is no change.
                self.is_first_change &= self.records.len() == before;
            }
        }
        Ok(())
    }

    fn judge(&mut self, spec: &'a TransformSpec, at: usize) -> Result<(), Paused> {
        let mut left = Vec::new();
        let mut failures = Vec::new();
        for record in std::mem::take(&mut self.records) {
            match record.value[at] {
                b'd' => {}
                b'f' => failures.push((record.source, FAILED)),
                b't' => failures.push((record.source, TRAPPED)),
                b'r' => match spec.targets.first() {
                    Some(target) => self.routed.push((target, record.source, record.value)),
                    None => failures.push((record.source, BAD_OUTPUT)),
                },
                b'm' => left.extend([record.clone(), record]),
                _ => left.push(record),
            }
        }
        // Whole records take the first offsets, in order; what fails later leaves gaps again.
        for (delta, record) in (0..).zip(&mut left) {
            record.delta = delta;
        }
        self.records = left;
        self.fail(spec, &failures)?;
        if !failures.is_empty() && !self.is_first_change {
            self.records.retain(|record| !self.failed.contains(&record.source));
        }
        self.is_first_change = false;
        Ok(())
    }

    fn fail(&mut self, spec: &TransformSpec, failures: &[(u32, u16)]) -> Result<(), Paused> {
        for &(source, code) in failures {
            // Of several outputs of one record the first failure counts.
            if !self.failed.insert(source) {
                continue;
            }
            match spec.on_error {
                OnError::DeadLetter => self.letters.push(Letter { source, transform: spec.name.clone(), code }),
                OnError::Drop => {}
                OnError::Reject => self.rejects.push((source, code)),
                OnError::Pause => return Err(Paused),
            }
        }
        Ok(())
    }

    fn close(mut self, records_in: u32) -> Outputs {
        self.routed.retain(|(_, source, _)| !self.failed.contains(source));
        self.routed.sort_by_key(|(_, source, _)| *source);
        self.letters.sort_by_key(|letter| letter.source);
        self.rejects.sort_unstable();
        let sources = self.records.iter().map(|record| record.source);
        let kept: BTreeSet<u32> = sources.chain(self.routed.iter().map(|(_, source, _)| *source)).collect();
        let (records_in, kept) = (u64::from(records_in), kept.len() as u64);
        let (dead_lettered, rejected) = (self.letters.len() as u64, self.rejects.len() as u64);
        let books = Books {
            records_in,
            kept,
            stored: (self.records.len() + self.routed.len()) as u64,
            dropped: records_in - kept - dead_lettered - rejected,
            dead_lettered,
            rejected,
        };
        let of_outputs = self.records.last().map_or(0, |last| u64::from(last.delta) + 1);
        let routed = self.routed.into_iter().map(|(target, source, value)| (target.clone(), source, value)).collect();
        Outputs {
            own: self.records,
            span: of_outputs.max(records_in),
            routed,
            letters: self.letters,
            rejects: self.rejects,
            books,
        }
    }
}
