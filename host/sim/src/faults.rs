//! One call to the disk fails, and then another: the k-th of each scenario, for every k there is, in every way a call can
//! fail.
//!
//! Owns what must hold whichever it is: nothing panics or hangs; what was acknowledged is there, while the disk fails, once
//! it is well again, and after the next start; a refusal names what it is about; once the disk is well the store serves
//! again without being reopened, and does all its work. Then the power is cut somewhere in the journal of it all.
//!
//! ```text
//! prepare -> faults from call k on -> work -> read -> the disk heals -> commit, work, read -> reopen, read -> cut, read
//! ```
//!
//! Start at [`every_call`].

mod scenario;

use std::{error::Error, fmt, path::Path, time::Duration};

use storage::StoreOptions;

pub use scenario::Scenario;

use crate::{
    disk::{Cut, FaultKind, Faults, Loss, SimDisk, Tree},
    history::Era,
    invariants::{self, Violation},
    model::Model,
    observed::Observed,
    rng::Rng,
    schedule,
    session::{Session, on_disk},
    tally::Tally,
    threads,
};

/// Where the store lies.
const DIR: &str = "/disk/data";

/// A store serves again so soon after its disk does: what `storage` promises.
const SERVES_WITHIN: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A scenario that makes more calls than this does not end.
const CALLS_MAX: u64 = 5_000;

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Which calls, and what they say.
    pub kind: FaultKind,
    /// Whether pages that a failed sync dropped are forgotten at once.
    pub evict: bool,
}

impl Fault {
    /// Every way.
    pub const EVERY: [Fault; 12] = [
        Fault::of(FaultKind::FileSync),
        Fault { kind: FaultKind::FileSync, evict: true },
        Fault::of(FaultKind::DirSync),
        Fault::of(FaultKind::Io),
        Fault::of(FaultKind::Full),
        Fault::of(FaultKind::ShortRead),
        Fault::of(FaultKind::ShortWrite),
        Fault::of(FaultKind::Open),
        Fault::of(FaultKind::Create),
        Fault::of(FaultKind::Rename),
        Fault::of(FaultKind::Remove),
        Fault::of(FaultKind::List),
    ];

    const fn of(kind: FaultKind) -> Fault {
        Fault { kind, evict: false }
    }

    /// Its name on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.kind {
            FaultKind::FileSync if self.evict => "sync-evicted",
            FaultKind::FileSync | FaultKind::Sync => "sync",
            FaultKind::DirSync => "sync-dir",
            FaultKind::Io => "eio",
            FaultKind::Full => "enospc",
            FaultKind::ShortRead => "short-read",
            FaultKind::ShortWrite => "short-write",
            FaultKind::Open => "open",
            FaultKind::Create => "create",
            FaultKind::Rename => "rename",
            FaultKind::Remove => "unlink",
            FaultKind::List => "list",
        }
    }

    /// Whether what is on the disk can be read meanwhile.
    fn lets_read(self) -> bool {
        !matches!(self.kind, FaultKind::Io | FaultKind::ShortRead | FaultKind::Open | FaultKind::List)
    }
}

/// For how long calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasting {
    /// One call.
    Once,
    /// This one and two more.
    Thrice,
    /// Until the disk heals.
    UntilHealed,
}

impl Lasting {
    /// Every one.
    pub const EVERY: [Lasting; 3] = [Lasting::Once, Lasting::Thrice, Lasting::UntilHealed];

    fn calls(self) -> u64 {
        match self {
            Lasting::Once => 1,
            Lasting::Thrice => 3,
            Lasting::UntilHealed => u64::MAX,
        }
    }
}

/// One run: which call of what fails, how, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What the store does.
    pub scenario: Scenario,
    /// How the call fails.
    pub fault: Fault,
    /// And for how long.
    pub lasting: Lasting,
    /// Which call, from 1 on.
    pub call: u64,
    /// Chooses the order of threads, and the power cut.
    pub seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { scenario, fault, lasting, call, seed } = self;
        write!(f, "call {call} of `{scenario}`, {}, {lasting:?}, seed {seed}", fault.name())
    }
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Happened {
    /// Calls that failed.
    pub calls_failed: u64,
    /// Commits and other things that were refused or failed.
    pub refusals: u64,
}

/// What came of all calls of a scenario that can fail in one way.
#[derive(Debug, Default)]
pub struct Row {
    /// Runs in which a call failed.
    pub runs: u64,
    /// Calls that failed.
    pub calls_failed: u64,
    /// What was refused.
    pub refusals: u64,
    /// Broken promises.
    pub failures: Vec<(Case, Violation)>,
}

/// Lets every call of a scenario fail, one run each, until one ends without having got there.
pub fn every_call(
    scenario: Scenario,
    fault: Fault,
    lasting: Lasting,
    seed: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Row {
    threads::listen();
    let mut row = Row::default();
    for call in 1..CALLS_MAX {
        let case = Case { scenario, fault, lasting, call, seed };
        match run(case) {
            Ok(Happened { calls_failed: 0, .. }) => break,
            Ok(Happened { calls_failed, refusals }) => {
                row.runs += 1;
                row.calls_failed += calls_failed;
                row.refusals += refusals;
            }
            Err(violation) => {
                row.runs += 1;
                row.failures.push((case, violation));
            }
        }
        if !go_on() {
            break;
        }
    }
    row
}

/// One run.
///
/// # Errors
/// The first promise that was not kept.
pub fn run(case: Case) -> Result<Happened, Violation> {
    let ran = schedule::run(case.seed, move || {
        threads::take_panic();
        let result = if case.scenario.is_offline() { run_offline(case) } else { run_online(case) };
        threads::take_panic().map_or(result, |panic| Err(Violation::new("no panic", panic)))
    });
    ran.unwrap_or_else(|stuck| Err(Violation::new("serves", stuck.to_string())))
}

/// Sizes under which everything happens early.
fn options(scenario: Scenario) -> StoreOptions {
    StoreOptions {
        segment_bytes_max: 256 << 10,
        tail_bytes_max: 0,
        preallocate_bytes: 64 << 10,
        cache_bytes: 1 << 20,
        compaction_bytes: 1 << 20,
        overlay_bytes_max: if scenario == Scenario::Apply { 4 << 10 } else { 1 << 20 },
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn begin(case: Case) -> Result<Session, Violation> {
    let disk = SimDisk::new(Tree::empty(), case.seed);
    let mut session = Session::begin(disk, Path::new(DIR), &options(case.scenario))?;
    case.scenario.prepare(&mut session)?;
    Ok(session)
}

impl Case {
    fn arm(&self, disk: &SimDisk) {
        let Fault { kind, evict } = self.fault;
        disk.set_faults(Some(Faults { kind, after: self.call - 1, count: self.lasting.calls(), evict }));
    }
}

fn run_online(case: Case) -> Result<Happened, Violation> {
    let mut rng = Rng::new(case.seed ^ case.call);
    let mut session = begin(case)?;
    let disk = session.disk.clone();
    case.arm(&disk);
    let refusals = case.scenario.work(&mut session, &mut rng)?;
    session.wait(0)?;
    refusals.iter().try_for_each(|text| named(text))?;
    if case.fault.lets_read() {
        readable(&mut session, &mut rng)?;
    }
    disk.set_faults(None);
    let calls_failed = disk.faults_hit();
    serves_again(&mut session, case.scenario)?;
    case.scenario.work_healed(&mut session)?;
    session.check(&mut rng)?;
    session.reopen(&mut rng, &mut Tally::default())?;
    scenario::produce(&mut session, &[(0, 200)])?;
    session.check(&mut rng)?;
    let refused = refusals.len() as u64;
    let eras = session.end()?.eras;
    cut(&disk, &eras, case.scenario, &mut rng)?;
    Ok(Happened { calls_failed, refusals: refused })
}

fn run_offline(case: Case) -> Result<Happened, Violation> {
    let mut rng = Rng::new(case.seed ^ case.call);
    let mut session = begin(case)?;
    let was = session.check(&mut rng)?;
    let disk = session.disk.clone();
    session.end()?;
    let options = options(case.scenario);
    case.arm(&disk);
    let refusals = case.scenario.work_offline(&disk, &options);
    refusals.iter().try_for_each(|text| named(text))?;
    disk.set_faults(None);
    let calls_failed = disk.faults_hit();
    case.scenario.work_offline_healed(&disk, &options, &was)?;
    same_store(&disk, &options, &was)?;
    Ok(Happened { calls_failed, refusals: refusals.len() as u64 })
}

/// What is done to a closed store leaves it as it was.
fn same_store(disk: &SimDisk, options: &StoreOptions, was: &Model) -> Result<(), Violation> {
    let store = invariants::opens(Path::new(DIR), on_disk(disk, options))?;
    let observed = Observed::of(&store, &mut Rng::new(0))?;
    invariants::check(&Era::new(0, was.clone()).expected_at(usize::MAX), &observed)?;
    invariants::closes(store)
}

/// Whatever fails but reads, what was acknowledged can be read. The state may be out for as long as the disk is.
fn readable(session: &mut Session, rng: &mut Rng) -> Result<(), Violation> {
    match Observed::of(session.store(), rng) {
        Err(violation) if violation.promise == "state" => Ok(()),
        observed => invariants::check(&session.era.expected_at(usize::MAX), &observed?).map(drop),
    }
}

/// A store whose disk is well takes commits again, applies its state, and seals what was left, all by itself; but for what
/// the cleaner wrote, which is sealed in its next round.
fn serves_again(session: &mut Session, scenario: Scenario) -> Result<(), Violation> {
    let looks = SERVES_WITHIN.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        session.stumbled = false;
        scenario::produce(session, &[(0, 150)])?;
        let stats = session.store().stats();
        if !session.stumbled && stats.state_failure.is_none() && (stats.unsealed == 0 || scenario.cleans()) {
            return Ok(());
        }
        schedule::sleep(LOOK_EVERY);
    }
    let stats = session.store().stats();
    let what = format!(
        "{} s after the fault: {}{:?}, {} unsealed, state: {:?}",
        SERVES_WITHIN.as_secs(),
        if session.stumbled { "no commit is taken, " } else { "" },
        stats.health,
        stats.unsealed,
        stats.state_failure,
    );
    Err(Violation::new("serves", what))
}

/// Cuts the power somewhere, and looks at what is there.
fn cut(disk: &SimDisk, eras: &[Era], scenario: Scenario, rng: &mut Rng) -> Result<(), Violation> {
    let (mut durable, journal) = disk.history();
    let position = rng.below(journal.len() + 1);
    journal[..position].iter().for_each(|op| durable.step(op));
    let expected = match eras.iter().rev().find(|era| era.opened_at <= position) {
        Some(era) => era.expected_at(position),
        None => Era::new(0, Model::default()).expected_at(position),
    };
    let cut = Cut { bytes: None, names: rng.pick(&[Loss::All, Loss::None, Loss::Suffix, Loss::Writes]) };
    let (tree, _) = durable.crash(cut, rng);
    let after = SimDisk::new(tree, rng.number());
    let of_cut =
        |violation: Violation| Violation::new(violation.promise, format!("cut at {position}: {}", violation.what));
    let store = invariants::opens(Path::new(DIR), on_disk(&after, &options(scenario))).map_err(of_cut)?;
    let observed = Observed::of(&store, rng).map_err(of_cut)?;
    invariants::check(&expected, &observed).map_err(of_cut)?;
    invariants::closes(store)
}

/// A refusal names what it is about.
fn named(text: &str) -> Result<(), Violation> {
    if text.contains('`') {
        return Ok(());
    }
    Err(Violation::new("named", format!("a refusal names nothing: {text}")))
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
