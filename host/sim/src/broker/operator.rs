//! The operator: creates, alters and deletes topics, uploads plugins, deploys and removes transforms, while producers
//! produce and things break.
//!
//! Owns what the catalog may be: after an answer it is known, and after none it is one of two, until the broker shows
//! which. One operation at a time.
//!
//! Start at [`Operator::run`].

use std::{sync::Arc, time::Duration};

use ::broker::Broker;
use protocol::{
    CleanupPolicy, ErrorCode, LimitChanges, OnError, PartitionDescription, Retention, TopicConfig, TopicDescription,
    TopicName, TopicPartition, TransformName, WireError,
    control::{AlterTopic, CreateTopic, DeployTransform, Placement},
};

use super::{
    catalog::{Catalog, Operation, difference},
    guests,
    plan::{self, PASSING},
    world::{Life, Stage, World},
};
use crate::{invariants::Violation, rng::Rng, schedule};

/// What an operator does.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    /// Pauses between operations, in milliseconds at most.
    pub(super) pace_ms: u64,
    /// It deploys transforms that pause a partition.
    pub(super) pauses: bool,
    /// How much it likes each kind of operation.
    pub(super) likings: Likings,
}

/// How often an operator asks for each kind of operation, beside the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Likings {
    pub(super) upload: usize,
    pub(super) delete_plugin: usize,
    pub(super) deploy: usize,
    pub(super) remove: usize,
    pub(super) alter: usize,
    pub(super) delete: usize,
    pub(super) create: usize,
}

impl Likings {
    /// Of everything something.
    pub(super) const EVEN: Likings =
        Likings { upload: 12, delete_plugin: 3, deploy: 35, remove: 15, alter: 15, delete: 10, create: 10 };
    /// Topics that change all the time.
    pub(super) const SETTINGS: Likings =
        Likings { upload: 1, delete_plugin: 0, deploy: 5, remove: 3, alter: 80, delete: 1, create: 1 };
    /// Topics that come and go.
    pub(super) const TOPICS: Likings =
        Likings { upload: 4, delete_plugin: 3, deploy: 20, remove: 10, alter: 5, delete: 30, create: 28 };
}

/// See the module.
pub(super) struct Operator {
    rng: Rng,
    world: Arc<World>,
    habits: Habits,
}

/// How an operation was answered.
enum Answered {
    Done,
    Refused(WireError),
    /// It may be done.
    Unknown(WireError),
    /// Nobody answers any more.
    Gone,
}

const WHO: &str = "operator";

impl Operator {
    pub(super) fn new(habits: Habits, rng: Rng, world: Arc<World>) -> Operator {
        Operator { rng, world, habits }
    }

    /// Works until nothing may break any more; then mends what it paused, and leaves.
    pub(super) fn run(mut self) {
        while self.world.stage() == Stage::Working {
            schedule::sleep(Duration::from_millis(self.rng.within(0..=self.habits.pace_ms)));
            let Some(life) = self.world.life() else { continue };
            let operation = self.choose();
            self.ask(&life, &operation);
        }
        while self.world.stage() == Stage::Healing {
            match (self.world.life(), self.pausing()) {
                (_, None) => break,
                (Some(life), Some(operation)) => {
                    self.ask(&life, &operation);
                }
                (None, Some(_)) => {}
            }
            schedule::sleep(Duration::from_millis(100));
        }
        self.world.set_idle(usize::MAX, true);
    }

    /// Makes topics, and a first pipeline, before anybody else comes.
    pub(super) fn prepare(mut self, topics: &[CreateTopic]) {
        let Some(life) = self.world.life() else { return };
        for topic in topics {
            self.ask(&life, &Operation::Create(topic.clone()));
        }
        for number in 0..guests::all().len() {
            self.ask(&life, &Operation::Upload(number));
        }
        for _ in 0..self.rng.below(4) {
            let piped = plan::topic(self.rng.pick(plan::PIPED));
            let deploy = self.deploy(&self.world.catalog(), piped);
            self.ask(&life, &Operation::Deploy(deploy));
        }
    }

    /// Removes a transform that may pause a partition.
    fn pausing(&self) -> Option<Operation> {
        let catalog = self.world.catalog();
        let mut all = catalog.topics.iter().flat_map(|(name, topic)| topic.transforms.iter().map(move |t| (name, t)));
        let (topic, spec) = all.find(|(_, spec)| spec.on_error == OnError::Pause)?;
        Some(Operation::Remove(topic.clone(), spec.name.clone()))
    }

    fn choose(&mut self) -> Operation {
        let catalog = self.world.catalog();
        let piped = plan::topic(self.rng.pick(plan::PIPED));
        let Likings { upload, delete_plugin, deploy, remove, alter, delete, create } = self.habits.likings;
        let mut at = self.rng.below(upload + delete_plugin + deploy + remove + alter + delete + create);
        let mut is_next = |liking: usize| {
            let is_it = at < liking;
            at = at.wrapping_sub(liking);
            is_it
        };
        if is_next(upload) {
            Operation::Upload(self.rng.below(guests::all().len()))
        } else if is_next(delete_plugin) {
            Operation::DeletePlugin(guests::all()[self.rng.below(guests::all().len())].name.clone())
        } else if is_next(deploy) {
            Operation::Deploy(self.deploy(&catalog, piped))
        } else if is_next(remove) {
            let name = match catalog.transforms(&piped) {
                [] => transform(0),
                some => some[self.rng.below(some.len())].name.clone(),
            };
            Operation::Remove(piped, name)
        } else if is_next(alter) {
            self.alter(&catalog)
        } else if is_next(delete) {
            Operation::Delete(plan::topic(PASSING))
        } else {
            Operation::Create(plan::create(PASSING, 2, TopicConfig::default()))
        }
    }

    fn deploy(&mut self, catalog: &Catalog, topic: TopicName) -> DeployTransform {
        let guest = &guests::all()[self.rng.below(guests::all().len())];
        let targets: Vec<TopicName> =
            plan::TARGETS.iter().map(|name| plan::topic(name)).filter(|target| *target != topic).collect();
        let mut targets = vec![targets[self.rng.below(targets.len())].clone()];
        if self.rng.percent(15) {
            targets.clear();
        }
        let on_error = match self.rng.below(10) {
            0..5 => OnError::DeadLetter,
            5..7 => OnError::Reject,
            7 if self.habits.pauses => OnError::Pause,
            _ => OnError::Drop,
        };
        let beside = catalog.transforms(&topic).first().map(|spec| spec.name.clone());
        let name = transform(self.rng.below(3));
        let placement = match (self.rng.below(4), beside) {
            (0, Some(beside)) if beside != name => Placement::Before(beside),
            (1, Some(beside)) if beside != name => Placement::After(beside),
            _ => Placement::Last,
        };
        DeployTransform {
            name: Some(name),
            on_error,
            limits: unhurried(),
            targets,
            placement,
            ..DeployTransform::new(topic, guest.name.clone())
        }
    }

    fn alter(&mut self, catalog: &Catalog) -> Operation {
        let name = plan::topic(self.rng.pick(plan::ALTERED));
        let mut alter = AlterTopic { name, retention: None, max_record_bytes: None, partitions: None };
        match self.rng.below(5) {
            0 => {
                let age_ms = self.rng.pick(&[None, Some(2_000), Some(10_000)]);
                let bytes = self.rng.pick(&[None, Some(20_000), Some(200_000)]);
                let policy = CleanupPolicy::Delete;
                alter.retention = Some(Retention { age_ms, bytes, policy, ..Retention::default() });
            }
            1..4 => alter.max_record_bytes = Some(self.rng.pick(&[plan::SMALL_RECORD_BYTES_MAX, 1 << 20])),
            _ => {
                let partitions = catalog.topics.get(&alter.name).map_or(1, |topic| topic.partitions);
                alter.partitions = Some((partitions + 1).min(4));
            }
        }
        Operation::Alter(alter)
    }

    /// Asks for an operation, and compares what the broker then shows with what may be there.
    fn ask(&mut self, life: &Life, operation: &Operation) {
        let before = self.world.catalog();
        let after = before.after(operation);
        let may_be = self.world.begin_operation(after.clone());
        self.world.ask(|ledger| match operation {
            Operation::Delete(topic) => ledger.may_be_deleted(topic),
            Operation::Deploy(DeployTransform { topic, .. }) | Operation::Remove(topic, _) => {
                ledger.pipeline_may_be(topic, after.transforms(topic).to_vec());
            }
            Operation::Create(CreateTopic { name, .. }) => ledger.pipeline_may_be(name, Vec::new()),
            _ => {}
        });
        self.world.request(WHO, format_args!("asks: {operation:?}"));
        let answered = match self.perform(life, operation) {
            _ if !self.world.is_current(life.number) => Answered::Gone,
            Ok(()) => Answered::Done,
            Err(error) => match error.code {
                ErrorCode::CommitUnknown | ErrorCode::Internal | ErrorCode::ShuttingDown => Answered::Unknown(error),
                _ => Answered::Refused(error),
            },
        };
        let now = match &answered {
            Answered::Gone => {
                self.world.tell(WHO, "hears nothing");
                self.world.count("an operation had no answer");
                return;
            }
            Answered::Done => {
                self.world.tell(WHO, "done");
                self.count(&before, operation);
                // What was there already was not committed, and what failed before it may come back; but only where it
                // agrees with the answer.
                let agrees = |may_be: &Catalog| after == before && may_be.after(operation) == *may_be;
                let mut may_be: Vec<Catalog> = may_be.into_iter().filter(agrees).collect();
                may_be.push(after.clone());
                self.world.end_operation(may_be, after.clone());
                after
            }
            Answered::Refused(error) => {
                self.world.tell(WHO, format_args!("refused: {error}"));
                self.world.count("an operation was refused");
                self.world.end_operation(may_be, before.clone());
                before
            }
            Answered::Unknown(error) => {
                self.world.tell(WHO, format_args!("unknown: {error}"));
                self.world.count("an operation had no answer");
                // Whatever became of it, this broker goes on as before.
                self.world.end_operation([may_be, vec![after]].concat(), before.clone());
                before
            }
        };
        self.compare(life, &now);
    }

    /// The broker shows what it should.
    fn compare(&self, life: &Life, expected: &Catalog) {
        let shown = Catalog::of(&life.broker);
        if !self.world.is_current(life.number) {
            return;
        }
        if shown != *expected {
            let what = format!("the broker shows something else than was answered: {}", difference(expected, &shown));
            return self.world.fail(Violation::new("catalog", what));
        }
        if let Err(violation) = settle(&self.world, &life.broker, expected) {
            self.world.fail(violation);
        }
    }

    fn perform(&self, life: &Life, operation: &Operation) -> Result<(), WireError> {
        let broker = &life.broker;
        match operation.clone() {
            Operation::Create(create) => schedule::block_on(broker.create_topic(create)).map(drop)?,
            Operation::Delete(topic) => schedule::block_on(broker.delete_topic(topic))?,
            Operation::Alter(alter) => schedule::block_on(broker.alter_topic(alter)).map(drop)?,
            Operation::Upload(number) => {
                let guest = &guests::all()[number];
                schedule::block_on(broker.upload_plugin(guest.name.clone(), guest.wasm.clone())).map(drop)?;
            }
            Operation::DeletePlugin(name) => schedule::block_on(broker.delete_plugin(name))?,
            Operation::Deploy(deploy) => schedule::block_on(broker.deploy_transform(deploy)).map(drop)?,
            Operation::Remove(topic, name) => schedule::block_on(broker.remove_transform(topic, name))?,
        }
        Ok(())
    }

    fn count(&self, before: &Catalog, operation: &Operation) {
        self.world.count(match operation {
            Operation::Create(_) => "a topic was created again",
            Operation::Delete(_) => "a topic was deleted",
            Operation::Alter(AlterTopic { partitions: Some(_), .. }) => "a topic got more partitions",
            Operation::Alter(_) => "a topic was altered",
            Operation::Upload(_) => "a plugin was uploaded",
            Operation::DeletePlugin(_) => "a plugin was deleted",
            Operation::Deploy(DeployTransform { topic, name, .. }) => {
                let is_there = before.transforms(topic).iter().any(|spec| Some(&spec.name) == name.as_ref());
                if is_there { "a transform was replaced" } else { "a transform was deployed" }
            }
            Operation::Remove(..) => "a transform was removed",
        });
    }
}

fn transform(number: usize) -> TransformName {
    TransformName::new(&format!("stage-{number}")).expect("a name")
}

/// What the broker shows is what batches that begin now go through, and these partitions are there.
pub(super) fn settle(world: &World, broker: &Broker, catalog: &Catalog) -> Result<(), Violation> {
    let topics = broker.describe_topics(&[]).unwrap_or_default();
    world.ask(|ledger| {
        for (name, topic) in &catalog.topics {
            ledger.pipeline_is(name, topic.transforms.clone());
        }
        for TopicDescription { name, partitions, .. } in topics {
            for (partition, PartitionDescription { id, .. }) in (0..).zip(partitions) {
                ledger.exists(id, &TopicPartition { topic: name.clone(), partition })?;
            }
        }
        Ok(())
    })
}

/// No guest here loops, and a host that is busy must not make one fail. A breaker goes by the clock, which is no part of
/// what a seed decides.
fn unhurried() -> LimitChanges {
    LimitChanges {
        deadline_ms: Some(60_000),
        record_deadline_ms: Some(60_000),
        breaker_batches: Some(0),
        ..LimitChanges::default()
    }
}
