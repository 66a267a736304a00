//! What is asked of a store, as a seed says: one thing after the other, many of them on their way at once.
//!
//! Owns the choice of what comes next; each step has a chance of its own, so that one that is left out changes nothing of
//! the others but what they find.
//!
//! Start at [`Workload::run`].

mod draft;
mod sizes;

use std::{num::NonZeroUsize, path::Path, time::Duration};

use storage::sync;

pub use self::{draft::Draft, sizes::Sizes};
use crate::{
    disk::{FaultKind, Faults},
    invariants::Violation,
    model::Written,
    rng::Rng,
    rows::ProducerRow,
    run::{BACKUP_DIR, RunOptions},
    session::Session,
    tally::Tally,
};

/// How often a store is asked to take a commit after a fault: longer than it takes to try a new segment.
const RETRIES_MAX: usize = 40;

/// How long between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Workload {
    /// How large everything is.
    pub sizes: Sizes,
    /// What decides each step, by its number.
    seed: u64,
    /// Faults come at all.
    faulty: bool,
    /// Steps that are left out.
    skip: Vec<usize>,
}

impl Workload {
    /// A long one, in which anything may happen.
    #[must_use]
    pub fn long(rng: &mut Rng, run: &RunOptions) -> Workload {
        let mut sizes = Sizes::of(rng);
        sizes.steps = run.steps_max.map_or(sizes.steps, |steps_max| sizes.steps.min(steps_max));
        let faulty = rng.percent(50) && run.faults;
        Workload { sizes, seed: rng.number(), faulty, skip: run.skip.clone() }
    }

    /// A short one, for a store that was cut: does it go on?
    #[must_use]
    pub fn short(&self, rng: &mut Rng, run: &RunOptions) -> Workload {
        let steps = rng.within(1..=8) as usize;
        let sizes = Sizes { steps, bytes_left: self.sizes.bytes_left.min(200_000), ..self.sizes.clone() };
        Workload { sizes, seed: rng.number(), faulty: rng.percent(30) && run.faults, skip: Vec::new() }
    }

    /// Asks for all of it.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn run(mut self, session: &mut Session, tally: &mut Tally) -> Result<(), Violation> {
        let seed = self.seed;
        for step in (0..self.sizes.steps).filter(|step| !self.skip.contains(step)).collect::<Vec<_>>() {
            let mut rng = Rng::new(seed ^ (step as u64) << 32);
            self.step(session, &mut rng, tally)?;
            if session.stumbled {
                self.recover(session, &mut rng, tally)?;
            }
        }
        session.disk.set_faults(None);
        session.wait(0)?;
        if session.stumbled {
            self.recover(session, &mut Rng::new(!seed), tally)?;
        }
        Ok(())
    }

    fn step(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        if self.faulty && rng.percent(15) {
            session.disk.set_faults(Some(faults(rng)));
        }
        match rng.below(100) {
            0..56 => self.produce(session, rng, tally)?,
            56..62 => self.change_topics(session, rng, tally)?,
            62..67 => self.send_again(session, rng, tally)?,
            67..73 => {
                if self.faulty && rng.percent(40) {
                    session.disk.set_faults(Some(Faults { after: rng.within(0..=12), ..faults(rng) }));
                }
                // Commits before and behind it are on their way meanwhile.
                let _ = session.during("rolling", |store| store.roll());
            }
            73..77 => {
                let now_ms = rng.below(session.next_number as usize + 200) as i64;
                let round = session.start("retention", move |store| store.run_retention(now_ms));
                self.meanwhile(session, rng, tally)?;
                session.finish_retention(round);
            }
            77..86 => self.clean(session, rng, tally)?,
            86..88 => self.back_up(session, rng, tally)?,
            88..93 => session.show(rng)?,
            93..97 => session.reopen(rng, tally)?,
            _ => drop(session.check(rng)?),
        }
        Ok(())
    }

    /// Commits while something else goes on.
    fn meanwhile(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        for _ in 0..rng.below(5) {
            if session.stumbled {
                break;
            }
            self.produce(session, rng, tally)?;
        }
        Ok(())
    }

    fn clean(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        let now_ms = session.next_number as i64 + rng.pick(&[0, 10, 1_000]);
        let mut steps = if rng.percent(70) { usize::MAX } else { rng.below(6) };
        let round = session.start("cleaning", move |store| {
            store.clean(now_ms, &mut |_| {
                steps = steps.saturating_sub(1);
                steps > 0
            })
        });
        self.meanwhile(session, rng, tally)?;
        if let Some(Ok(report)) = session.finish(round) {
            tally.note_if("a segment was rewritten", report.segments_rewritten > 0);
            tally.note_if("records were compacted", report.records_compacted > 0);
            tally.note_if("the cleaner was stopped", report.stopped);
        }
        Ok(())
    }

    fn back_up(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        let keep = NonZeroUsize::new(rng.below(3));
        let round = session
            .start("backup", move |store| store.backup(Path::new(BACKUP_DIR), keep, &mut |_| Ok(()), &mut |_| true));
        self.meanwhile(session, rng, tally)?;
        tally.note_if("a backup was made", session.finish_backup(round)?);
        Ok(())
    }

    /// A commit as a broker makes most of them.
    fn produce(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        let mut draft = Draft::on(&session.projected, session.next_number);
        if draft.topic(rng).is_none() {
            draft.create(rng);
        }
        for _ in 0..rng.pick(&[0, 1, 1, 1, 2, 6]) {
            let bytes = self.batch_bytes(rng);
            draft.produce(bytes, rng);
        }
        if rng.percent(10) {
            draft.change_partition(rng);
        }
        for _ in 0..rng.pick(&[0, 0, 1, 3]) {
            draft.row(rng);
        }
        let appends = draft.commit.appends.iter();
        tally.note_if("all records of a batch were dropped", appends.clone().any(|append| append.batches.is_none()));
        tally.note_if("a record was multiplied", draft.written.len() > appends.clone().count());
        session.submit(draft.commit, draft.written);
        session.wait(self.sizes.in_flight_max)
    }

    fn batch_bytes(&mut self, rng: &mut Rng) -> usize {
        let bytes = match rng.below(10) {
            0..6 => rng.within(0..=300),
            6..8 => rng.within(0..=self.sizes.batch_bytes_max.min(20_000)),
            _ => rng.within(0..=self.sizes.batch_bytes_max),
        };
        let bytes = (bytes as usize).min(self.sizes.bytes_left);
        self.sizes.bytes_left -= bytes;
        bytes
    }

    /// Makes and deletes topics, and puts versions of their pipelines in force. What else is on its way is waited for: a
    /// broker lets none of these pass a batch.
    fn change_topics(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        session.wait(0)?;
        if session.stumbled {
            return Ok(());
        }
        let mut draft = Draft::on(&session.projected, session.next_number);
        let topics = session.projected.topics().count();
        match (draft.topic(rng), rng.below(10)) {
            (Some((name, topic)), 0..2) => {
                draft.delete(name, &topic);
                if rng.percent(70) {
                    draft.create(rng);
                    tally.note("a topic was made anew");
                }
            }
            (Some((name, topic)), 2..7) => {
                for _ in 0..rng.below(3) {
                    draft.produce(self.batch_bytes(rng), rng);
                }
                draft.deploy(name, &topic);
                tally.note("a version was deployed");
            }
            _ if topics < self.sizes.topics_max => draft.create(rng),
            _ => draft.change_partition(rng),
        }
        session.submit(draft.commit, draft.written);
        session.wait(0)
    }

    /// Sends batches again of which a producer does not know what became, or does.
    fn send_again(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        session.wait(0)?;
        if session.stumbled || session.sent.is_empty() {
            return Ok(());
        }
        let written = session.sent[rng.below(session.sent.len())].clone();
        let Some(log) = session.projected.partitions.get(&written.partition) else { return Ok(()) };
        let compacts = log.compacts;
        let producer = written.batch.producer.expect("only those of producers are kept");
        let Some(answers) = session.answers(written.partition, producer)? else { return Ok(()) };
        let next = answers.into_iter().max_by_key(|row| row.number).map_or(0, ProducerRow::next_sequence);
        let unknown = session.sent.iter().find(|sent| {
            sent.partition == written.partition
                && sent.batch.producer == Some(producer)
                && sent.batch.sequence() == Some(next)
        });
        if let Some(unknown) = unknown.filter(|_| rng.percent(70)).cloned() {
            let mut draft = Draft::on(&session.projected, session.next_number);
            if draft.produce_again(&unknown) {
                tally.note("an unknown batch was sent again");
                session.submit(draft.commit, draft.written);
                return session.wait(0);
            }
        }
        if !compacts {
            tally.note_if("an acknowledged batch was sent again", self.is_answered_alike(session, &written)?);
        }
        Ok(())
    }

    /// Whether the table has the answer to a batch; then the batch is where it says.
    fn is_answered_alike(&self, session: &Session, written: &Written) -> Result<bool, Violation> {
        let producer = written.batch.producer.unwrap_or_default();
        let mut answers = session.answers(written.partition, producer)?.into_iter().flatten();
        let Some(row) = answers.find(|row| Some(row.sequence) == written.batch.sequence()) else { return Ok(false) };
        session.holds(written.partition, producer, row)?;
        Ok(true)
    }

    /// After a commit that did not go well: the disk heals, and the store takes commits again, soon.
    fn recover(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        if rng.percent(50) {
            session.disk.set_faults(None);
        }
        session.wait(0)?;
        for attempt in 0..RETRIES_MAX {
            if session.full {
                tally.note("appends had no room");
                self.free(session, rng, attempt)?;
            }
            (session.stumbled, session.full) = (false, false);
            self.produce_something(session, rng)?;
            if !session.stumbled {
                tally.note_if("appends were taken again", attempt > 0);
                return Ok(());
            }
            if attempt >= 3 {
                session.disk.set_faults(None);
                sync::sleep(RETRY_INTERVAL);
            }
            if attempt >= RETRIES_MAX / 2 {
                session.disk.make_room();
            }
        }
        Err(Violation::new("serves", "no append is taken any more after a fault that is over"))
    }

    fn produce_something(&mut self, session: &mut Session, rng: &mut Rng) -> Result<(), Violation> {
        let mut draft = Draft::on(&session.projected, session.next_number);
        if draft.topic(rng).is_none() {
            draft.create(rng);
        }
        draft.produce(100, rng);
        session.submit(draft.commit, draft.written);
        session.wait(0)
    }

    /// Makes room in a full store, as an operator would: the more, the longer it lasts.
    fn free(&mut self, session: &mut Session, rng: &mut Rng, attempt: usize) -> Result<(), Violation> {
        let topics: Vec<_> = session.projected.topics().collect();
        let mut draft = Draft::on(&session.projected, session.next_number);
        for (name, topic) in &topics {
            match attempt {
                0..3 if rng.percent(50) => {}
                0..6 if rng.percent(70) => draft.trim(topic),
                _ => draft.delete(*name, topic),
            }
        }
        if !draft.is_empty() {
            session.submit(draft.commit, draft.written);
            session.wait(0)?;
        }
        let _ = session.during("rolling", |store| store.roll());
        let round = session.start("retention", move |store| store.run_retention(0));
        session.finish_retention(round);
        let round = session.start("cleaning", |store| store.clean(0, &mut |_| true));
        let _ = session.finish(round);
        Ok(())
    }
}

fn faults(rng: &mut Rng) -> Faults {
    Faults {
        kind: rng.pick(&[FaultKind::Io, FaultKind::Full, FaultKind::Sync, FaultKind::Sync, FaultKind::DirSync]),
        after: rng.within(0..=60),
        count: rng.pick(&[1, 1, 2, 10]),
        evict: rng.percent(50),
    }
}
