//! Readers: some follow a partition with so much credit, slowly or fast, and some look here and there. They vanish at any
//! time and come back.
//!
//! Owns nothing but its place; everything it is shown goes to the oracle.
//!
//! Start at [`Reader::run`].

use std::{sync::Arc, time::Duration};

use ::broker::{FetchError, Partition, ReadOutcome};
use bytes::Bytes;
use protocol::{
    BatchError, ErrorCode, Offset, PartitionId, RecordBatch, TopicPartition, WireError, control::OffsetSpec,
};

use super::{
    ledger::{Floor, ShownRun},
    world::{Life, Stage, World, now_ms},
};
use crate::{invariants::Violation, rng::Rng, schedule};

/// How long a reader rests when there is nothing to read from.
const REST: Duration = Duration::from_millis(100);

/// How a reader reads.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    pub(super) place: TopicPartition,
    /// It follows the partition's end, with so many bytes at a time; or it looks here and there.
    pub(super) follows: Option<usize>,
    /// It rests after a read, so often in a hundred.
    pub(super) rests: u64,
    /// It vanishes, so often in a thousand reads.
    pub(super) vanishes: u64,
}

/// See the module.
pub(super) struct Reader {
    number: usize,
    name: String,
    rng: Rng,
    world: Arc<World>,
    habits: Habits,
    /// Where it was, in which partition.
    at: Option<(PartitionId, Offset)>,
}

/// Why a reader stops.
enum Stop {
    /// The broker or the partition is gone; it comes back.
    Gone,
    /// Everybody leaves.
    Over,
}

impl Reader {
    pub(super) fn new(number: usize, habits: Habits, rng: Rng, world: Arc<World>) -> Reader {
        Reader { number, name: format!("reader-{number}"), rng, world, habits, at: None }
    }

    /// Reads until everybody leaves.
    pub(super) fn run(mut self) {
        loop {
            if self.world.stage() == Stage::Over {
                return;
            }
            let stop = match self.world.life() {
                None => Stop::Gone,
                Some(life) => self.attend(&life),
            };
            self.world.follows(self.number, None);
            if matches!(stop, Stop::Over) {
                return;
            }
            schedule::sleep(REST);
        }
    }

    /// Reads in one life of the broker.
    fn attend(&mut self, life: &Life) -> Stop {
        let found = life.broker.partition(&self.habits.place);
        let Ok(partition) = found else { return Stop::Gone };
        if !self.world.is_current(life.number) {
            return Stop::Gone;
        }
        let id = partition.id();
        self.world.note(&self.name, format_args!("attends to {} = partition {id}", self.habits.place), |ledger| {
            ledger.partition_is(id, partition.topic_partition())
        });
        match self.habits.follows {
            Some(credit) => self.follow(life, &partition, credit),
            None => self.look_around(life, &partition),
        }
    }

    fn follow(&mut self, life: &Life, partition: &Partition, credit: usize) -> Stop {
        let id = partition.id();
        let mut next = match self.at {
            // It may not know how far it was.
            Some((at, offset)) if at == id && self.rng.percent(70) => offset,
            _ => Offset::ZERO,
        };
        loop {
            self.world.follows(self.number, Some((id, next)));
            if self.world.stage() == Stage::Over {
                return Stop::Over;
            }
            let reached = self.world.ask(|ledger| ledger.floor(id)).is_below(next);
            self.world.count_if("a reader waited", !reached);
            if let Err(error) = schedule::block_on(partition.wait_for(next)) {
                return self.refused(life, &error, id);
            }
            if !self.world.is_current(life.number) {
                return Stop::Gone;
            }
            match self.fetch(life, partition, next, credit) {
                Ok(Some(outcome)) => next = outcome,
                // It was behind the log's start.
                Ok(None) => match self.look(life, partition) {
                    Some((log_start, _)) => next = next.max(log_start),
                    None => return Stop::Gone,
                },
                Err(stop) => return stop,
            }
            self.at = Some((id, next));
            if self.world.stage() == Stage::Working {
                if self.rng.within(0..=999) < self.habits.vanishes {
                    self.world.tell(&self.name, "vanishes");
                    self.world.count("a reader vanished");
                    return Stop::Gone;
                }
                if self.rng.percent(self.habits.rests) {
                    self.world.count("a reader was slow");
                    schedule::sleep(Duration::from_millis(self.rng.within(1..=2_000)));
                }
            }
        }
    }

    fn look_around(&mut self, life: &Life, partition: &Partition) -> Stop {
        loop {
            schedule::sleep(Duration::from_millis(self.rng.within(1..=400)));
            if self.world.stage() == Stage::Over {
                return Stop::Over;
            }
            let Some((log_start, high_watermark)) = self.look(life, partition) else { return Stop::Gone };
            if self.rng.percent(20) {
                if self.find(life, partition).is_none() {
                    return Stop::Gone;
                }
                continue;
            }
            let from = Offset(self.rng.within(log_start.0..=high_watermark.0));
            let bytes = self.rng.pick(&[0, 1, 300, 4_000, 1 << 20]);
            match self.fetch(life, partition, from, bytes) {
                Ok(_) => {}
                Err(stop) => return stop,
            }
        }
    }

    /// Looks where the partition stands; `None` when it is gone.
    fn look(&self, life: &Life, partition: &Partition) -> Option<(Offset, Offset)> {
        let id = partition.id();
        let floor = self.world.ask(|ledger| ledger.floor(id));
        let place = partition.place();
        if !self.world.is_current(life.number) {
            return None;
        }
        let place = place?;
        let (log_start, high_watermark) = (place.log_start_offset, place.high_watermark);
        self.world.note(&self.name, format_args!("sees partition {id} at {log_start}..{high_watermark}"), |ledger| {
            ledger.stands(id, floor, log_start, high_watermark)
        });
        self.world.count_if("retention moved a log start", log_start > Offset::ZERO);
        Some((log_start, high_watermark))
    }

    /// Looks a time up.
    fn find(&mut self, life: &Life, partition: &Partition) -> Option<()> {
        let back = self.rng.within(0..=5_000) as i64;
        let timestamp = now_ms() - back;
        self.world.request(&self.name, format_args!("asks for the offset {back} ms ago"));
        let found = schedule::block_on(partition.find_offset(OffsetSpec::Timestamp(timestamp)));
        if !self.world.is_current(life.number) {
            return None;
        }
        match found {
            Ok(offset) => {
                self.world.tell(&self.name, format_args!("is told {offset}"));
                self.world.count("a timestamp was found");
                Some(())
            }
            Err(error) => {
                self.refused(life, &error, partition.id());
                None
            }
        }
    }

    /// Reads once, and notes what it is shown; where to read next. `None` when the offset is behind the log's start.
    fn fetch(
        &mut self,
        life: &Life,
        partition: &Partition,
        from: Offset,
        bytes: usize,
    ) -> Result<Option<Offset>, Stop> {
        let id = partition.id();
        let floor = self.world.ask(|ledger| ledger.floor(id));
        self.world.request(&self.name, format_args!("fetches {bytes} bytes of partition {id} from {from}"));
        let outcome = schedule::block_on(partition.fetch(from, bytes));
        if !self.world.is_current(life.number) {
            return Err(Stop::Gone);
        }
        match outcome {
            Ok(outcome) => {
                show(&self.world, &self.name, id, floor, from, &outcome);
                Ok(Some(outcome.next_offset))
            }
            Err(FetchError::OffsetOutOfRange { log_start_offset, .. }) if log_start_offset > from => {
                self.world.tell(&self.name, format_args!("is behind, the log begins at {log_start_offset}"));
                self.world.count("a reader was behind the log start");
                Ok(None)
            }
            Err(error) => Err(self.refused(life, &error, id)),
        }
    }

    /// A refusal is fine where the partition or the broker is gone, or the disk fails.
    fn refused(&self, life: &Life, error: &FetchError, id: PartitionId) -> Stop {
        if !self.world.is_current(life.number) {
            return Stop::Gone;
        }
        let wire = WireError::from(error);
        self.world.tell(&self.name, format_args!("is refused: {:?}, {wire}", wire.code));
        match wire.code {
            ErrorCode::UnknownTopic | ErrorCode::ShuttingDown => {}
            ErrorCode::Internal if self.world.is_faulty() => self.world.count("a read failed for a fault of the disk"),
            _ => {
                let what = format!("a reader of partition {id} was told: {wire}");
                self.world.fail(Violation::new("what is there can be read", what));
            }
        }
        Stop::Gone
    }
}

impl Floor {
    /// Whether records from `next` on are known.
    fn is_below(self, next: Offset) -> bool {
        self.high_watermark() > next.0
    }
}

/// Tells the oracle what a fetch showed.
pub(super) fn show(world: &World, who: &str, id: PartitionId, floor: Floor, from: Offset, outcome: &ReadOutcome) {
    let ReadOutcome { batches, next_offset, high_watermark } = outcome;
    let bytes: usize = batches.iter().map(Bytes::len).sum();
    let what = format!("is shown partition {id} {from}..{next_offset}, {bytes} bytes, high watermark {high_watermark}");
    match split(batches) {
        Ok(batches) => world.note(who, what, |ledger| {
            let run = ShownRun { from, next_offset: *next_offset, high_watermark: *high_watermark, batches: &batches };
            ledger.shown(id, floor, &run)
        }),
        Err(error) => {
            world.fail(Violation::new("shown stays", format!("partition {id} showed what is no batch: {error}")));
        }
    }
}

fn split(runs: &[Bytes]) -> Result<Vec<RecordBatch>, BatchError> {
    let mut batches = Vec::new();
    for run in runs {
        let mut run = run.clone();
        while let Some(batch) = RecordBatch::split_first(&mut run)? {
            batches.push(batch);
        }
    }
    Ok(batches)
}
