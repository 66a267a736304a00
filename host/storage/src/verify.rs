//! Checks every byte of a data directory that is not in use: index files, parts, commit records, batches, coverage, the
//! chain of segments, redb's own trees, the state. Writes nothing, and mends nothing.
//!
//! Owns the findings and what spans segments; one segment is `segment`'s. Reads each file from its beginning to its end,
//! about, with at most one commit of it in memory.
//!
//! Start at [`verify`].

mod segment;

use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

use bytes::Bytes;
use protocol::{Offset, PartitionId};

use self::segment::{End, SegmentCheck};
use crate::{
    OpenError, ProbedFile, StateTable, StoreId, StoreOptions,
    fault::{Fault, file_name},
    inspect::{self, Head, PartitionRows, what},
    probe,
    recovery::STATE_FILE,
    state_file,
};

/// Findings that are kept one by one; a file of nothing but damage has no end of them.
const DAMAGES_MAX: usize = 10_000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: String,
    /// What does not match.
    pub what: String,
    /// Whose records it harms, if it harms any.
    pub partition: Option<PartitionId>,
    /// Which of them.
    pub offsets: Option<Range<Offset>>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, what, partition, offsets } = self;
        write!(f, "`{file}`: {what}")?;
        if let Some(partition) = partition {
            write!(f, " (partition {partition}")?;
            if let Some(Range { start, end }) = offsets {
                write!(f, ", offsets {start} to {}", end.0.saturating_sub(1))?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes checked.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Findings so far.
    pub damages: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Segments.
    pub segments: usize,
    /// Commits in them.
    pub commits: u64,
    /// Record batches in them.
    pub record_batches: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What is not as it was written, in the order of files; the first ten thousand.
    pub damages: Vec<Damage>,
    /// Findings beyond those.
    pub damages_beyond: u64,
    /// The rows of the catalog, where they can be read: which topic a partition is of is written there.
    pub catalog: Vec<(Bytes, Bytes)>,
}

/// Checks the store in `dir`. `progress` is told of every part that is read.
///
/// # Errors
/// When a broker has the directory open, there is no store in it, a newer weir wrote it, or the disk does not answer.
/// Damage is no error: it is what the report is for.
pub fn verify(
    dir: &Path,
    options: &StoreOptions,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, OpenError> {
    let _lock = inspect::lock(options, dir)?;
    let heads = inspect::heads(options, dir)?;
    let mut check = StoreCheck {
        options,
        dir,
        findings: Findings {
            report: VerifyReport::default(),
            bytes_total: bytes_total(options, dir, &heads)?,
            progress,
        },
        rows: PartitionRows::default(),
        // Before the first commit there are none.
        rows_known: true,
        coverage: BTreeMap::new(),
        last_sequence: 0,
    };
    for at in 0..heads.len() {
        check.segment(&heads, at)?;
    }
    check.coverage();
    check.state(&heads)?;
    let Findings { mut report, .. } = check.findings;
    report.segments = heads.len();
    Ok(report)
}

fn bytes_total(options: &StoreOptions, dir: &Path, heads: &[Head]) -> Result<u64, OpenError> {
    let files = options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
    let state = files.iter().find(|file| file.name == STATE_FILE).map_or(0, |file| file.disk_bytes);
    Ok(state + heads.iter().map(|head| head.bytes).sum::<u64>())
}

/// What was found so far, and who is told how far it went.
struct Findings<'p> {
    report: VerifyReport,
    bytes_total: u64,
    progress: &'p mut dyn FnMut(VerifyProgress),
}

impl Findings<'_> {
    /// Adds what is wrong with a file.
    fn file(&mut self, path: &Path, what: impl Into<String>) {
        self.add(Damage { file: file_name(path), what: what.into(), partition: None, offsets: None });
    }

    /// Adds what is wrong with some of a partition's records.
    fn records(&mut self, path: &Path, what: impl Into<String>, partition: PartitionId, offsets: Range<u64>) {
        let offsets = Some(Offset(offsets.start)..Offset(offsets.end));
        self.add(Damage { file: file_name(path), what: what.into(), partition: Some(partition), offsets });
    }

    /// A range that continues the last one is one finding with it.
    fn add(&mut self, damage: Damage) {
        let report = &mut self.report;
        if let (Some(last), Some(offsets)) = (report.damages.last_mut(), &damage.offsets) {
            let same = (&last.file, &last.what, last.partition) == (&damage.file, &damage.what, damage.partition);
            if let Some(before) = last.offsets.as_mut().filter(|before| same && before.end == offsets.start) {
                before.end = offsets.end;
                return;
            }
        }
        match report.damages.len() < DAMAGES_MAX {
            true => report.damages.push(damage),
            false => report.damages_beyond += 1,
        }
    }

    fn count(&self) -> u64 {
        self.report.damages.len() as u64 + self.report.damages_beyond
    }

    fn advance(&mut self, bytes: u64) {
        self.report.bytes += bytes;
        let (bytes_done, damages) = (self.report.bytes.min(self.bytes_total), self.count());
        (self.progress)(VerifyProgress { bytes_done, bytes_total: self.bytes_total, damages });
    }
}

struct StoreCheck<'v> {
    options: &'v StoreOptions,
    dir: &'v Path,
    findings: Findings<'v>,
    /// The partitions as the headers and commits read so far make them.
    rows: PartitionRows,
    /// Whether no commit was missing since they were known; else the next header tells.
    rows_known: bool,
    /// Runs of offsets that segments cover, in the order of segments.
    coverage: BTreeMap<PartitionId, Vec<Range<u64>>>,
    last_sequence: u64,
}

impl StoreCheck<'_> {
    fn segment(&mut self, heads: &[Head], at: usize) -> Result<(), OpenError> {
        let (head, bytes_before) = (&heads[at], self.findings.report.bytes);
        if let Some(what) = &head.index_damage {
            self.findings.file(&head.index_path, what);
        }
        self.chain(heads, at);
        let end = match inspect::end_sequence(heads, at) {
            Some(until) => Some(End::At(until)),
            None => self.probe(&head.path, ProbedFile::Segment)?.map(End::Shown),
        };
        match SegmentCheck::open(self.options, head, end, &mut self.findings) {
            None => self.rows_known = false,
            Some(mut check) => {
                check.run(&mut self.rows, &mut self.rows_known);
                self.last_sequence = self.last_sequence.max(check.until());
                for (partition, run) in check.into_coverage() {
                    self.coverage.entry(partition).or_default().push(run);
                }
            }
        }
        // Which commits redb shows is no matter: of a file that was not closed in order the last ones may be missing.
        self.probe(&head.path, ProbedFile::SegmentPages)?;
        // Blocks that hold no parts (redb's own pages, and what it freed) were read by the probe.
        let read = self.findings.report.bytes - bytes_before;
        self.findings.advance(head.bytes.saturating_sub(read));
        Ok(())
    }

    /// Whether a segment follows on the one before it.
    fn chain(&mut self, heads: &[Head], at: usize) {
        let head = &heads[at];
        let before = at.checked_sub(1).map(|before| &heads[before]);
        let Some(header) = &head.header else { return };
        // Segments in which nothing is alive are unlinked, so a number that is missing is no damage by itself.
        let follows = match (header.previous, before) {
            (None, None) => true,
            (Some(previous), Some(before)) => previous.segment == before.end_id(),
            _ => false,
        };
        self.rows_known &= follows;
        let Some((before, header_before)) = before.and_then(|before| Some((before, before.header.as_ref()?))) else {
            return;
        };
        if header.store != header_before.store {
            self.findings.file(&head.path, "it belongs to another store");
        }
        let end = header.previous.filter(|_| follows).map(|previous| previous.last_sequence);
        if let (Some(end), Some(indexed)) = (end, before.indexed_until)
            && end != indexed
        {
            let what = format!("it says that segment {} ended at commit {end}, but that has {indexed}", before.id);
            self.findings.file(&head.path, what);
        }
        if header.first_sequence < header_before.first_sequence {
            self.findings.file(&head.path, "it is older than the segment before it");
        }
    }

    /// What redb says of a file, where it can be made to look at it without harm.
    fn probe(&mut self, path: &Path, file: ProbedFile) -> Result<Option<u64>, OpenError> {
        match self.options.prober.probe(&*self.options.file_system, path, file) {
            Ok(last) => Ok(Some(last)),
            Err(error @ OpenError::NewerFormat { .. }) => Err(error),
            Err(error) => {
                self.findings.file(path, format!("redb cannot use it: {}", what(error)));
                Ok(None)
            }
        }
    }

    /// Whether every partition is covered from its log start to its end.
    fn coverage(&mut self) {
        let segments = self.dir.join("segments");
        for (id, row) in &self.rows.0 {
            let mut next = row.log_start;
            for run in self.coverage.get(id).into_iter().flatten().filter(|run| run.end > row.log_start) {
                if run.start > next {
                    self.findings.records(&segments, "no segment holds them", *id, next..run.start);
                } else if run.start < next && next > row.log_start {
                    self.findings.records(&segments, "two segments hold them", *id, run.start..next);
                }
                next = next.max(run.end);
            }
            if next < row.next_offset {
                self.findings.records(&segments, "no segment holds them", *id, next..row.next_offset);
            }
        }
    }

    fn state(&mut self, heads: &[Head]) -> Result<(), OpenError> {
        let path = self.dir.join(STATE_FILE);
        let files = self.options.file_system.list(self.dir);
        let files = files.map_err(|error| Fault::io(self.dir, "list", error))?;
        let Some(file) = files.iter().find(|file| file.name == STATE_FILE) else {
            self.findings.file(&path, "it is gone; the next start makes it anew from the segments");
            return Ok(());
        };
        if let Some(applied) = self.probe(&path, ProbedFile::State)? {
            if applied > self.last_sequence {
                let what = format!("it is at commit {applied}, but the log ends at {}", self.last_sequence);
                self.findings.file(&path, what);
            }
            if let Some(header) = heads.iter().rev().find_map(|head| head.header.as_ref()) {
                self.catalog(&path, StoreId(header.store));
            }
        }
        self.findings.advance(file.disk_bytes);
        Ok(())
    }

    /// Reads the catalog, for the names in it, and whether it is this store's. The probe came first: redb takes the file.
    fn catalog(&mut self, path: &Path, store: StoreId) {
        let rows = probe::open_overlay(&*self.options.file_system, path)
            .and_then(|db| state_file::rows_of(path, store, &db, StateTable::Catalog));
        match rows {
            Ok(rows) => self.findings.report.catalog = rows,
            Err(fault) => self.findings.file(path, what(fault.into())),
        }
    }
}
