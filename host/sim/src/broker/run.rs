//! One run: the broker opens, everybody works, things break, everything heals, and what is there is compared with what was
//! promised.
//!
//! Start at [`Run::run`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::broker::{Broker, Partition};
use protocol::{BatchBuilder, Compression, Offset, PartitionId, Record, TopicPartition, WireError};

use super::{
    catalog::{Catalog, difference},
    explain::value,
    ledger::{Closing, Made},
    life,
    operator::{self, Operator},
    plan::{Act, Plan},
    producer::Producer,
    reader::{self, Reader},
    world::{Life, Stage, World, now, now_ms},
};
use crate::{
    disk::{Cut, Damage, Durable, FaultKind, Faults, Lie, Op, SimDisk},
    invariants::{self, Violation},
    rng::Rng,
    schedule,
};

/// How long it may take until everything is as it should be, once nothing breaks any more.
const HEAL_DURATION_MAX: Duration = Duration::from_secs(120);

/// How often it is looked whether it is.
const HEAL_INTERVAL: Duration = Duration::from_millis(50);

/// What is read at a time in the end.
const AUDIT_BYTES: usize = 256 << 10;

const WHO: &str = "run";

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    Cut(Cut),
}

/// See the module.
pub(super) struct Run {
    rng: Rng,
    plan: Plan,
    lie: Lie,
    world: Arc<World>,
    threads: Vec<schedule::JoinHandle<()>>,
}

impl Run {
    pub(super) fn new(mut rng: Rng, world: Arc<World>, lie: Lie) -> Run {
        Run { plan: Plan::of(&mut rng), rng, lie, world, threads: Vec::new() }
    }

    /// Runs to the end, or to the first promise that is broken.
    pub(super) fn run(mut self) {
        if let Err(violation) = self.work() {
            self.world.fail(violation);
        }
        self.world.counts(|counts| counts.simulated_ms = now().as_millis() as u64);
    }

    fn work(&mut self) -> Result<(), Violation> {
        let disk = self.world.disk();
        let broker = self.open(&disk)?;
        self.begin_life(broker)?;
        let operator = Operator::new(self.plan.operator.clone(), self.rng.fork(), self.world.clone());
        operator.prepare(&self.plan.topics);
        self.start_clients();
        for (wait, act) in self.plan.acts.clone() {
            self.pass(wait)?;
            self.act(act)?;
        }
        self.pass(Duration::from_millis(500))?;
        self.heal()?;
        self.audit()?;
        self.world.set_stage(Stage::Over);
        self.end()?;
        let Closing { routed, trapped, in_doubt, unanswered } = self.world.ask(|ledger| ledger.close())?;
        self.world.counts(|counts| {
            for (what, times) in [
                ("a record was routed", routed),
                ("a guest trapped", trapped),
                ("a batch may have gone through two pipelines", in_doubt),
                ("a batch was left without an answer", unanswered),
            ] {
                counts.note_times(what, times as u64);
            }
        });
        Ok(())
    }

    fn start_clients(&mut self) {
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            schedule::spawn(format!("weir-sim-{name}"), run).expect("the host has room for a thread")
        };
        for (number, habits) in self.plan.producers.iter().enumerate() {
            let producer = Producer::new(number, habits.clone(), self.rng.fork(), self.world.clone());
            self.threads.push(spawn(format!("producer-{number}"), Box::new(move || producer.run())));
        }
        for (number, habits) in self.plan.readers.iter().enumerate() {
            let reader = Reader::new(number, habits.clone(), self.rng.fork(), self.world.clone());
            self.threads.push(spawn(format!("reader-{number}"), Box::new(move || reader.run())));
        }
        let operator = Operator::new(self.plan.operator.clone(), self.rng.fork(), self.world.clone());
        self.threads.push(spawn("operator".into(), Box::new(move || operator.run())));
    }

    /// Lets time pass.
    fn pass(&self, time: Duration) -> Result<(), Violation> {
        schedule::sleep(time);
        self.look()
    }

    /// Whether all is well so far.
    fn look(&self) -> Result<(), Violation> {
        self.world.violation().map_or(Ok(()), Err)?;
        invariants::no_panics()
    }

    fn act(&mut self, act: Act) -> Result<(), Violation> {
        self.world.tell(WHO, format_args!("{act:?}"));
        match act {
            Act::Kill => self.crash(End::Kill, 0),
            Act::Cut { cut, again } => self.crash(End::Cut(cut), again),
            Act::Restart => self.restart(),
            Act::Fail(faults) => {
                self.world.set_faulty();
                self.world.disk().set_faults(Some(faults));
                Ok(())
            }
            Act::Heal => {
                self.stop_faults();
                Ok(())
            }
        }
    }

    /// No call to the disk fails any more.
    fn stop_faults(&self) {
        let disk = self.world.disk();
        disk.set_faults(None);
        self.count_faults(&disk);
    }

    fn count_faults(&self, disk: &SimDisk) {
        let kinds =
            [(FaultKind::Io, "an i/o error"), (FaultKind::Full, "a full disk"), (FaultKind::Sync, "a failed sync")];
        self.world.counts(|counts| {
            for (kind, what) in kinds {
                counts.note_times(what, disk.faults_of(kind));
            }
        });
    }

    /// The broker's life ends without a warning, and begins anew on what is left.
    fn crash(&mut self, end: End, again: u32) -> Result<(), Violation> {
        let Some(life) = self.world.end_life() else { return Ok(()) };
        let disk = self.world.disk();
        let (begun_with, journal) = disk.history();
        self.world.counts(|counts| {
            counts.crashes += 1;
            counts.faults += disk.faults_hit();
            counts.note(match end {
                End::Kill => "killed",
                End::Cut(_) => "the power was cut",
            });
        });
        self.threads.push(life::ghost(life, disk));
        let mut left = self.leave(begun_with, &journal, end);
        let mut broker = self.open_faulty(&left)?;
        for _ in 0..again {
            let (begun_with, journal) = left.history();
            let cut_at = self.rng.below(journal.len() + 1);
            self.world.tell(WHO, format_args!("cuts the power at call {cut_at} of {} of the opening", journal.len()));
            self.world.counts(|counts| {
                counts.crashes += 1;
                counts.note("the power was cut twice");
            });
            self.threads.push(life::ghost(Life { number: 0, broker }, left));
            left = self.leave(begun_with, &journal[..cut_at], end);
            broker = self.open_faulty(&left)?;
        }
        self.begin_life(broker)
    }

    /// What is on the disk after a life ended.
    fn leave(&mut self, begun_with: Durable, journal: &[Op], end: End) -> SimDisk {
        let mut durable = begun_with;
        journal.iter().for_each(|op| durable.step(op));
        let left = match end {
            End::Kill => SimDisk::after_kill(durable.seen(), durable, self.rng.number()),
            End::Cut(cut) => {
                let (tree, Damage { writes_lost, names_lost, .. }) = durable.crash(cut, &mut self.rng);
                self.world.tell(WHO, format_args!("{writes_lost} writes and {names_lost} names are lost"));
                self.world.count_if("writes were lost", writes_lost > 0);
                SimDisk::new(tree, self.rng.number())
            }
        };
        let left = left.lying(self.lie);
        self.world.set_disk(left.clone());
        left
    }

    /// Opens the broker on what is left, perhaps with a disk that fails at first.
    fn open_faulty(&mut self, disk: &SimDisk) -> Result<Broker, Violation> {
        if self.rng.percent(20) {
            let kind = self.rng.pick(&[FaultKind::Io, FaultKind::Full, FaultKind::Sync]);
            let (after, count) = (self.rng.within(0..=30), self.rng.pick(&[1, 100_000]));
            disk.set_faults(Some(Faults { kind, after, count, evict: false }));
            let opened = life::open(&self.plan, disk);
            disk.set_faults(None);
            self.count_faults(disk);
            match opened {
                Ok(broker) => return Ok(broker),
                Err(error) => {
                    self.world.tell(WHO, format_args!("a fault keeps the broker from opening: {error}"));
                    self.world.count("a fault kept it from opening");
                }
            }
        }
        self.open(disk)
    }

    /// Opens the broker on a disk that does not fail.
    fn open(&self, disk: &SimDisk) -> Result<Broker, Violation> {
        let opened = life::open(&self.plan, disk);
        invariants::no_panics()?;
        opened.map_err(|error| Violation::new("opens", error))
    }

    /// The broker is shut down, with all clients at work, and opened again.
    fn restart(&mut self) -> Result<(), Violation> {
        let Some(life) = self.world.life() else { return Ok(()) };
        let disk = self.world.disk();
        self.world.counts(|counts| {
            counts.crashes += 1;
            counts.note("restarted");
        });
        schedule::block_on(life.broker.shutdown());
        self.world.tell(WHO, "the broker is shut down");
        drop(self.world.end_life());
        drop(life);
        let (begun_with, journal) = disk.history();
        let left = self.leave(begun_with, &journal, End::Kill);
        let broker = self.open(&left)?;
        self.begin_life(broker)
    }

    /// A broker that was opened shows what it should, and takes requests.
    fn begin_life(&mut self, broker: Broker) -> Result<(), Violation> {
        let shown = Catalog::of(&broker);
        let may_be = self.world.catalogs();
        if !may_be.contains(&shown) {
            let differences: Vec<String> = may_be.iter().map(|may_be| difference(may_be, &shown)).collect();
            return Err(Violation::new(
                "catalog",
                format!("the broker opened with {}", differences.join(", or with ")),
            ));
        }
        self.world
            .count_if("a transform was restored", shown.topics.values().any(|topic| !topic.transforms.is_empty()));
        self.world.end_operation(vec![shown.clone()], shown.clone());
        operator::settle(&self.world, &broker, &shown)?;
        for (_, partition) in partitions(&broker) {
            let id = partition.id();
            let floor = self.world.ask(|ledger| ledger.floor(id));
            let Some(stands) = partition.place() else { continue };
            self.world.ask(|ledger| ledger.stands(id, floor, stands.log_start_offset, stands.high_watermark))?;
        }
        self.world.begin_life(broker);
        self.world.tell(WHO, "the broker lives");
        Ok(())
    }

    /// Nothing breaks any more: whatever was begun comes to its end, and everybody is served.
    fn heal(&mut self) -> Result<(), Violation> {
        self.stop_faults();
        self.world.tell(WHO, "nothing breaks any more");
        self.world.set_stage(Stage::Healing);
        let clients = self.plan.producers.len() + 1;
        self.wait("producers have their answers", |world| world.idle_count() >= clients)?;
        let life = self.world.life().expect("nobody ends it any more");
        let is_read = |world: &World| have_read_all(world, &life.broker);
        // Before anything new comes: it would wake who was forgotten.
        self.wait("readers reach the end", is_read)?;
        for (place, partition) in partitions(&life.broker) {
            self.probe(&place, &partition)?;
        }
        self.wait("readers reach the new end", is_read)?;
        self.world.count("it healed");
        Ok(())
    }

    fn wait(&self, what: &str, is_so: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let until = now() + HEAL_DURATION_MAX;
        while !is_so(&self.world) {
            self.pass(HEAL_INTERVAL)?;
            if now() > until {
                return Err(Violation::new("it heals", format!("not within {HEAL_DURATION_MAX:?}: {what}")));
            }
        }
        Ok(())
    }

    /// A record gets into a partition.
    fn probe(&self, place: &TopicPartition, partition: &Partition) -> Result<(), Violation> {
        let until = now() + HEAL_DURATION_MAX;
        let id = partition.id();
        self.world.ask(|ledger| ledger.partition_is(id, place))?;
        loop {
            let batch = self.world.next_batch();
            let record = Record::unkeyed(value(*b"kk..", batch, 0, b""), now_ms());
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(&record).expect("a small record fits");
            let encoded = builder.finish(Offset::ZERO).expect("a small record fits");
            let made = Made { order: None, place: place.clone(), records: vec![record] };
            self.world.request(WHO, format_args!("probes {place} with batch {}", batch.0));
            self.world.ask(|ledger| {
                ledger.made(batch, made);
                ledger.offered(batch, id);
            });
            match schedule::block_on(partition.produce(encoded)) {
                Ok(answer) => return self.world.ask(|ledger| ledger.acked(batch, id, &answer)),
                Err(error) => {
                    let error = WireError::from(error);
                    self.world.tell(WHO, format_args!("{place} takes nothing: {error}"));
                    if now() > until || !error.code.is_retryable() {
                        return Err(Violation::new("it heals", format!("{place} takes no batch: {error}")));
                    }
                    schedule::sleep(Duration::from_millis(error.retry_after_ms.max(50).into()));
                }
            }
        }
    }

    /// Reads everything there is.
    fn audit(&self) -> Result<(), Violation> {
        let life = self.world.life().expect("nobody ends it any more");
        for (place, partition) in partitions(&life.broker) {
            self.world.ask(|ledger| ledger.partition_is(partition.id(), &place))?;
            self.read_all(&partition)?;
        }
        self.look()
    }

    fn read_all(&self, partition: &Partition) -> Result<(), Violation> {
        let id = partition.id();
        let unreadable = |what: String| Violation::new("what is there can be read", format!("partition {id}: {what}"));
        loop {
            let floor = self.world.ask(|ledger| ledger.floor(id));
            let place = partition.place().ok_or_else(|| unreadable("it is gone".to_owned()))?;
            let (mut next, end) = (place.log_start_offset, place.high_watermark);
            self.world.ask(|ledger| ledger.stands(id, floor, next, end))?;
            while next < end {
                let floor = self.world.ask(|ledger| ledger.floor(id));
                match schedule::block_on(partition.fetch(next, AUDIT_BYTES)) {
                    Ok(outcome) if outcome.next_offset > next => {
                        reader::show(&self.world, "audit", id, floor, next, &outcome);
                        next = outcome.next_offset;
                    }
                    Ok(_) => return Err(unreadable(format!("a fetch from {next} leads nowhere"))),
                    // Retention may take the beginning away meanwhile: it begins again behind it.
                    Err(::broker::FetchError::OffsetOutOfRange { log_start_offset, .. }) if log_start_offset > next => {
                        break;
                    }
                    Err(error) => return Err(unreadable(WireError::from(error).to_string())),
                }
            }
            if next >= end {
                return Ok(());
            }
        }
    }

    /// Everybody leaves, the broker is shut down; opened once more, it shows the same.
    fn end(&mut self) -> Result<(), Violation> {
        let disk = self.world.disk();
        let life = self.world.life().expect("nobody ends it any more");
        schedule::block_on(life.broker.shutdown());
        drop((life, self.world.end_life()));
        for thread in self.threads.drain(..) {
            // Who panicked has said so.
            let _ = thread.join();
        }
        invariants::no_panics()?;
        self.world.counts(|counts| counts.faults += disk.faults_hit());
        let (begun_with, journal) = disk.history();
        let left = self.leave(begun_with, &journal, End::Kill);
        let broker = self.open(&left)?;
        self.begin_life(broker)?;
        self.audit()?;
        let life = self.world.end_life().expect("it was just begun");
        schedule::block_on(life.broker.shutdown());
        invariants::no_panics()
    }
}

/// Whether readers that follow a partition are at its end.
fn have_read_all(world: &World, broker: &Broker) -> bool {
    let partitions = partitions(broker);
    let ends: BTreeMap<PartitionId, Offset> = partitions
        .iter()
        .filter_map(|(_, partition)| Some((partition.id(), partition.place()?.high_watermark)))
        .collect();
    world.followed().iter().all(|(id, at)| ends.get(id).is_some_and(|end| end <= at))
}

/// Every partition of a broker.
fn partitions(broker: &Broker) -> Vec<(TopicPartition, Arc<Partition>)> {
    let topics = broker.describe_topics(&[]).unwrap_or_default();
    let places = topics.into_iter().flat_map(|topic| {
        let name = topic.name;
        (0..topic.partitions.len() as u32).map(move |partition| TopicPartition { topic: name.clone(), partition })
    });
    places.filter_map(|place| broker.partition(&place).ok().map(|partition| (place, partition))).collect()
}
