//! A store on a simulated disk, and everything that is asked of it, with the history of both.
//!
//! Owns the numbering of commits and the waiting for answers. What to ask is `workload`'s matter.
//!
//! Start at [`Session::submit`].

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protocol::{Offset, PartitionId, RecordBatch};
use storage::{
    Commit, RetentionReport, StateChange, StateTable, Store, StoreOptions,
    sync::{self, JoinHandle, Receiver, Sender},
};

use crate::{
    clock::SimClock,
    disk::SimDisk,
    history::{self, Answer, Backup, Era, Expected, Read, Shown, Submitted},
    invariants::{self, Violation},
    model::{MARKER_KEY, MARKER_TABLE, Model, Written},
    observed::{Observed, read_from},
    rng::Rng,
    rows::ProducerRow,
    tally::Tally,
    threads::QuietProber,
};

/// How long an answer may take. Nothing here waits for anything slow.
const ANSWER_DURATION_MAX: Duration = Duration::from_secs(30);

/// How often it is looked whether a disk that healed serves again.
const HEAL_INTERVAL: Duration = Duration::from_millis(100);

/// At most so often: the store tries once a second.
const HEALS_MAX: usize = 100;

/// What a reader asks for at a time. Bytes.
const READ_BYTES: usize = 20_000;

/// How many batches of producers are kept for being sent again.
const SENT_MAX: usize = 40;

/// A stretch of the journal in which something went on.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// What.
    pub what: &'static str,
    /// The journal's position before it.
    pub begun_at: usize,
    /// And after.
    pub ended_at: usize,
}

/// Something that goes on beside the commits.
pub struct Round<R> {
    what: &'static str,
    begun_at: usize,
    thread: JoinHandle<R>,
}

/// What there is to know of a session when it is over.
pub struct Ended {
    /// The lives of the store, oldest first.
    pub eras: Vec<Era>,
    /// What went on when.
    pub spans: Vec<Span>,
    /// Backups that were made, or not.
    pub backups: Vec<Backup>,
    /// The number of the next commit.
    pub next_number: u64,
}

/// A store at work.
pub struct Session {
    /// Its disk.
    pub disk: SimDisk,
    /// Where on it.
    pub dir: PathBuf,
    /// Its sizes.
    pub options: StoreOptions,
    /// Its lives that are over.
    pub eras: Vec<Era>,
    /// The one that goes on.
    pub era: Era,
    /// What it should look like when all that was submitted goes well.
    pub projected: Model,
    /// The number of the next commit.
    pub next_number: u64,
    /// What went on when.
    pub spans: Vec<Span>,
    /// A commit did not go well since this was last looked at.
    pub stumbled: bool,
    /// A commit was refused for want of room since this was last looked at.
    pub full: bool,
    /// The last batches of producers, answered or not, oldest first.
    pub sent: VecDeque<Written>,
    /// Backups that were made, or not.
    pub backups: Vec<Backup>,
    store: Option<Store>,
    waiting: usize,
    sender: Sender<(u64, usize, Answer)>,
    answers: Receiver<(u64, usize, Answer)>,
}

/// Options for a disk.
#[must_use]
pub fn on_disk(disk: &SimDisk, options: &StoreOptions) -> StoreOptions {
    StoreOptions {
        file_system: Arc::new(disk.clone()),
        clock: Arc::new(SimClock::default()),
        prober: Arc::new(QuietProber),
        ..options.clone()
    }
}

impl Session {
    /// Makes a new store.
    ///
    /// # Errors
    /// When it does not open.
    pub fn begin(disk: SimDisk, dir: &Path, options: &StoreOptions) -> Result<Session, Violation> {
        let store = invariants::opens(dir, on_disk(&disk, options))?;
        Ok(Session::resume(disk, dir, options, store, Model::default(), 1))
    }

    /// Goes on with a store that is open, and all of `base` in it.
    #[must_use]
    pub fn resume(
        disk: SimDisk,
        dir: &Path,
        options: &StoreOptions,
        store: Store,
        base: Model,
        next_number: u64,
    ) -> Session {
        let (sender, answers) = sync::channel();
        Session {
            era: Era::new(disk.position(), base.clone()),
            eras: Vec::new(),
            projected: base,
            disk,
            dir: dir.to_path_buf(),
            options: options.clone(),
            next_number,
            spans: Vec::new(),
            stumbled: false,
            full: false,
            sent: VecDeque::new(),
            backups: Vec::new(),
            store: Some(store),
            waiting: 0,
            sender,
            answers,
        }
    }

    /// The store.
    ///
    /// # Panics
    /// When it could not be opened again.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("a session has a store between its calls")
    }

    /// Hands in a commit, with its marker.
    pub fn submit(&mut self, mut commit: Commit, written: Vec<Written>) {
        let number = self.next_number;
        self.next_number += 1;
        let (key, value) = (Bytes::from_static(MARKER_KEY), Some(Bytes::from(number.to_string())));
        commit.state.push(StateChange { table: MARKER_TABLE, key, value });
        self.projected.apply(&commit, &written);
        self.remember(&written);
        let at = self.disk.position();
        self.era.commits.push(Arc::new(Submitted { number, commit: commit.clone(), written, at, answer: None }));
        self.waiting += 1;
        let (disk, sender) = (self.disk.clone(), self.sender.clone());
        let done = move |result| drop(sender.send((number, disk.position(), Answer::of(result))));
        self.store().submit(commit, Box::new(done));
    }

    /// Keeps batches for being sent again, if somebody might.
    pub fn remember<'w>(&mut self, written: impl IntoIterator<Item = &'w Written>) {
        let of_producers = written.into_iter().filter(|written| written.batch.producer.is_some());
        self.sent.extend(of_producers.cloned());
        let surplus = self.sent.len().saturating_sub(SENT_MAX);
        self.sent.drain(..surplus);
    }

    /// Waits until no more than so many commits have no answer.
    ///
    /// # Errors
    /// When an answer does not come.
    pub fn wait(&mut self, waiting_max: usize) -> Result<(), Violation> {
        while self.waiting > waiting_max {
            let answer = self.answers.recv_timeout(ANSWER_DURATION_MAX);
            let Ok((number, at, answer)) = answer else {
                let what = match invariants::no_panics() {
                    Err(panic) => panic.what,
                    Ok(()) => "a commit is not answered".into(),
                };
                return Err(Violation::new("serves", what));
            };
            self.waiting -= 1;
            self.stumbled |= !matches!(answer, Answer::Acked { .. });
            self.full |= matches!(answer, Answer::Full(_));
            let submitted = self.era.commits.iter_mut().rev().find(|submitted| submitted.number == number);
            let submitted = submitted.expect("answers are to commits that were submitted");
            Arc::make_mut(submitted).answer = Some((at, answer));
        }
        if self.stumbled && self.waiting == 0 {
            self.projected = self.acked();
        }
        Ok(())
    }

    /// What was acknowledged.
    fn acked(&self) -> Model {
        let mut model = self.era.base.clone();
        for submitted in &self.era.commits {
            if matches!(submitted.answer, Some((_, Answer::Acked { .. }))) {
                model.apply(&submitted.commit, &submitted.written);
            }
        }
        model
    }

    /// Looks where partitions stand, as a reader would, and reads a piece of one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn show(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let places = self.store().partitions();
        let at = self.disk.position();
        self.era.shown.extend(places.iter().map(|(id, place)| Shown {
            at,
            id: *id,
            log_start: place.log_start_offset.0,
            high_watermark: place.high_watermark.0,
        }));
        if places.is_empty() {
            return Ok(());
        }
        let (id, place) = places[rng.below(places.len())];
        let from = rng.within(place.log_start_offset.0..=place.high_watermark.0);
        // A call to the disk may fail, and then nothing was shown.
        let hit = self.disk.faults_hit();
        match read_from(self.store(), id, Offset(from), READ_BYTES) {
            Ok(batches) => {
                let at = self.disk.position();
                self.era.read.extend(batches.into_iter().map(|(start, bytes)| Read { at, id, start, bytes }));
                Ok(())
            }
            // Nor of a partition that a commit on its way deletes.
            Err(_) if self.disk.faults_hit() > hit || self.waiting > 0 => Ok(()),
            Err(violation) => Err(violation),
        }
    }

    /// The answers to a producer's last batches, as the store has them; `None` where a fault keeps it from saying.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn answers(&self, partition: PartitionId, producer: u64) -> Result<Option<Vec<ProducerRow>>, Violation> {
        let prefix = ProducerRow::prefix(partition, producer);
        match self.store().state_scan(StateTable::Producers, &prefix) {
            Ok(rows) => Ok(Some(rows.iter().filter_map(|(_, value)| ProducerRow::decode(value)).collect())),
            Err(_) if self.disk.faults_hit() > 0 => Ok(None),
            Err(error) => Err(Violation::new("state", error.to_string())),
        }
    }

    /// Whether a batch is where its answer says.
    ///
    /// # Errors
    /// When it is not.
    pub fn holds(&self, id: PartitionId, producer: u64, row: ProducerRow) -> Result<(), Violation> {
        let Some(place) = self.store().partition(id) else { return Ok(()) };
        if row.base_offset < place.log_start_offset.0 {
            return Ok(());
        }
        let found = match read_from(self.store(), id, Offset(row.base_offset), 1) {
            Err(_) if self.disk.faults_hit() > 0 => return Ok(()),
            found => found?,
        };
        let is_it = |(start, bytes): &(u64, Bytes)| {
            let batch = RecordBatch::decode(bytes.clone()).ok();
            let of = batch.and_then(|batch| batch.header().producer());
            *start == row.base_offset && of.is_some_and(|of| (of.id.0, of.base_sequence.0) == (producer, row.sequence))
        };
        match found.iter().any(is_it) {
            true => Ok(()),
            false => Err(Violation::new("retried", format!("partition {id} has no batch for the answer {row:?}"))),
        }
    }

    /// Runs something that is noted as a span.
    pub fn during<R>(&mut self, what: &'static str, run: impl FnOnce(&Store) -> R) -> R {
        let begun_at = self.disk.position();
        let result = run(self.store());
        self.spans.push(Span { what, begun_at, ended_at: self.disk.position() });
        result
    }

    /// Begins something beside the commits, which is noted as a span.
    pub fn start<R: Send + 'static>(
        &mut self,
        what: &'static str,
        run: impl FnOnce(&Store) -> R + Send + 'static,
    ) -> Round<R> {
        let store = self.store().clone();
        let begun_at = self.disk.position();
        let name = format!("weir-sim-{what}");
        let thread = sync::spawn(name, move || run(&store));
        Round { what, begun_at, thread: thread.expect("the host has room for a thread") }
    }

    /// Waits for its end; `None` when it panicked, which is told later.
    pub fn finish<R>(&mut self, round: Round<R>) -> Option<R> {
        let Round { what, begun_at, thread } = round;
        let result = thread.join().ok();
        self.spans.push(Span { what, begun_at, ended_at: self.disk.position() });
        result
    }

    /// [`Session::finish`], of a round of retention.
    pub fn finish_retention<E>(&mut self, round: Round<Result<RetentionReport, E>>) {
        let begun_at = round.begun_at;
        let done = self.finish(round).is_some_and(|report| report.is_ok());
        let places = self.store().partitions().into_iter();
        let log_starts = done.then(|| places.map(|(id, place)| (id, place.log_start_offset.0)).collect());
        self.era.rounds.push(history::Round { begun_at, log_starts });
    }

    /// [`Session::finish`], of a backup; whether it was made.
    ///
    /// # Errors
    /// When a commit is not answered.
    pub fn finish_backup<R, E>(&mut self, round: Round<Result<R, E>>) -> Result<bool, Violation> {
        let begun_at = round.begun_at;
        let done = self.finish(round).is_some_and(|report| report.is_ok());
        let ended_at = self.disk.position();
        self.wait(0)?;
        let expected = Arc::new(self.era.expected_between(begun_at, ended_at));
        self.backups.push(Backup { begun_at, ended_at, done, expected });
        Ok(done)
    }

    /// Compares everything with what may be there now.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn check(&mut self, rng: &mut Rng) -> Result<Model, Violation> {
        self.disk.set_faults(None);
        self.wait(0)?;
        let hit = self.disk.faults_hit() > 0;
        for _ in 0..HEALS_MAX {
            match Observed::of(self.store(), rng) {
                // A state that could not be written or read is made anew some time after the disk healed.
                Err(violation) if hit && violation.promise == "state" => {
                    self.disk.make_room();
                    sync::sleep(HEAL_INTERVAL);
                }
                observed => return invariants::check(&self.expected(), &observed?),
            }
        }
        Err(Violation::new("serves", "the state cannot be read any more after a fault that is over"))
    }

    fn expected(&self) -> Expected {
        self.era.expected_at(usize::MAX)
    }

    /// Closes the store and opens it again; what is there then is the base of its next life.
    ///
    /// # Errors
    /// When it does not, or something else is there.
    pub fn reopen(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        self.wait(0)?;
        let store = self.store.take().expect("a session has a store between its calls");
        let begun_at = self.disk.position();
        self.close(store)?;
        let hit_before = self.disk.faults_hit();
        let mut opened = invariants::opens(&self.dir, on_disk(&self.disk, &self.options));
        if self.disk.faults_hit() > hit_before && opened.is_err() {
            tally.note("a fault kept it from opening");
            self.disk.set_faults(None);
            self.disk.make_room();
            opened = invariants::opens(&self.dir, on_disk(&self.disk, &self.options));
        }
        self.store = Some(opened?);
        self.spans.push(Span { what: "reopening", begun_at, ended_at: self.disk.position() });
        let opened_at = self.disk.position();
        self.disk.set_faults(None);
        let base = self.check(rng)?;
        self.projected = base.clone();
        self.eras.push(std::mem::replace(&mut self.era, Era::new(opened_at, base)));
        Ok(())
    }

    /// The state may lag behind after a fault for a while, and closing says so; nothing is lost by it.
    fn close(&self, store: Store) -> Result<(), Violation> {
        let closed = invariants::closes(store);
        if self.disk.faults_hit() == 0 { closed } else { invariants::no_panics() }
    }

    /// Closes the store for good.
    ///
    /// # Errors
    /// When it does not close.
    pub fn end(mut self) -> Result<Ended, Violation> {
        self.wait(0)?;
        let store = self.store.take().expect("a session has a store between its calls");
        let begun_at = self.disk.position();
        self.close(store)?;
        self.spans.push(Span { what: "closing", begun_at, ended_at: self.disk.position() });
        let mut eras = std::mem::take(&mut self.eras);
        eras.push(self.era);
        Ok(Ended { eras, spans: self.spans, backups: self.backups, next_number: self.next_number })
    }
}
