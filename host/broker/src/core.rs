//! Executes what the sequencer decides: hands commits to the store, answers producers, wakes readers and workers.
//!
//! Owns the sequencer's lock. Never decides anything.
//!
//! Invariants
//! - Commits are submitted under the lock under which their offsets were given, so the store sees them in order.
//! - Commits that came back are taken in by one thread, in the order in which the store answered.
//! - Watermarks move before producers are answered: who was answered can read what was written.
//!
//! Start at [`Core::sequence`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use protocol::{Offset, PartitionId, TopicConfig, TopicPartition};
use storage::{
    CommitDone, Store,
    sync::{self, Condvar, JoinHandle, Mutex, MutexGuard, Receiver, RwLock, Sender, channel},
};
use tokio::sync::{oneshot, watch};

use crate::{
    ProduceError,
    deployment::Deployment,
    sequencer::{Effects, FlightId, Outcome, Sequencer, Work},
};

/// Who waits for a batch.
pub(crate) type Waiter = oneshot::Sender<Outcome>;

/// How far readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    At(Offset),
    /// The partition was deleted.
    Gone,
    /// The broker shuts down.
    Closing,
}

/// A partition as workers and readers see it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: PartitionId,
    pub(crate) place: TopicPartition,
    pub(crate) mark: watch::Sender<Mark>,
    settings: RwLock<Arc<Settings>>,
}

/// What is in force on a partition now.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) max_record_bytes: u32,
    /// Every record needs a key: the topic compacts.
    pub(crate) keyed: bool,
    pub(crate) deployment: Arc<Deployment>,
}

impl Settings {
    /// What a topic's settings and transforms come to.
    pub(crate) fn new(config: &TopicConfig, deployment: Arc<Deployment>) -> Settings {
        Settings { max_record_bytes: config.max_record_bytes, keyed: config.retention.compacts(), deployment }
    }
}

impl Slot {
    pub(crate) fn new(id: PartitionId, place: TopicPartition, at: Offset, settings: Arc<Settings>) -> Slot {
        Slot { id, place, mark: watch::Sender::new(Mark::At(at)), settings: RwLock::new(settings) }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    pub(crate) fn set(&self, settings: Arc<Settings>) {
        *self.settings.write() = settings;
    }
}

/// The sequencer as it runs.
pub(crate) type Lanes = Sequencer<Waiter>;

enum Returned {
    Commit(FlightId, Result<(), ProduceError>),
    Stop,
}

/// See the module.
pub(crate) struct Core {
    pub(crate) store: Store,
    state: Mutex<State>,
    work: Condvar,
    /// Itself, for workers.
    itself: Weak<Core>,
    slots: RwLock<BTreeMap<PartitionId, Arc<Slot>>>,
    returned: Sender<Returned>,
    /// Whether everything accepted is answered; moves only while closing.
    idle: watch::Sender<bool>,
}

struct State {
    sequencer: Lanes,
    staff: Staff,
    closing: bool,
    stopped: bool,
}

type Job = Arc<dyn Fn(&Core) + Send + Sync>;

/// How many threads may run pipelines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crew {
    /// In all.
    pub(crate) workers_max: usize,
    /// For partitions of one topic; fewer than there are, so that a topic whose guest computes on and on leaves some.
    pub(crate) runs_per_group_max: usize,
}

/// The threads that run pipelines.
#[derive(Default)]
struct Staff {
    workers_max: usize,
    /// What a worker does; gone once the core is stopped, because it knows whoever holds the core.
    job: Option<Job>,
    handles: Vec<JoinHandle<()>>,
    /// Those that were made and have not begun.
    starting: usize,
    /// Those that wait, and of them those that were called.
    waiting: usize,
    called: usize,
}

impl Core {
    /// A core without partitions, and the thread that takes in what the store answers.
    pub(crate) fn start(store: Store, crew: Crew) -> std::io::Result<(Arc<Core>, JoinHandle<()>)> {
        let (returned, from_store) = channel();
        let sequencer = Sequencer::new(crew.runs_per_group_max);
        let staff = Staff { workers_max: crew.workers_max, ..Staff::default() };
        let core = Arc::new_cyclic(|itself| Core {
            store,
            state: Mutex::new(State { sequencer, staff, closing: false, stopped: false }),
            work: Condvar::new(),
            itself: itself.clone(),
            slots: RwLock::new(BTreeMap::new()),
            returned,
            idle: watch::Sender::new(false),
        });
        let taking = core.clone();
        let answers = sync::spawn("weir-answers", move || taking.take_in(&from_store))?;
        Ok((core, answers))
    }

    /// Lets the sequencer decide, and does what it says.
    pub(crate) fn sequence<T>(&self, event: impl FnOnce(&mut Lanes, &mut Effects<Waiter>) -> T) -> T {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        let result = event(&mut state.sequencer, &mut effects);
        self.execute(state, effects);
        result
    }

    fn execute(&self, mut state: MutexGuard<'_, State>, effects: Effects<Waiter>) {
        for (id, commit) in effects.commits {
            self.store.submit(commit, self.done(id));
        }
        if state.stopped {
            // Nobody takes in what the store answers any more.
            let mut rest = Effects::default();
            state.sequencer.abandon(&mut rest);
            answer(rest.answers);
        }
        self.call_workers(&mut state);
        if state.closing && state.sequencer.is_idle() {
            self.idle.send_replace(true);
        }
        drop(state);
        self.move_marks(&effects.watermarks);
        answer(effects.answers);
    }

    /// Says what workers do; they are made as work comes.
    pub(crate) fn hire(&self, job: impl Fn(&Core) + Send + Sync + 'static) {
        let mut state = self.state.lock();
        state.staff.job = Some(Arc::new(job));
        self.call_workers(&mut state);
    }

    /// Calls as many workers as would find something to do, and makes more where too few wait. Who has a guest that
    /// computes on and on is not waited for.
    fn call_workers(&self, state: &mut State) {
        let runnable = state.sequencer.runnable_count(state.staff.workers_max);
        let staff = &mut state.staff;
        while staff.called < runnable.min(staff.waiting) {
            staff.called += 1;
            self.work.notify_one();
        }
        while staff.called + staff.starting < runnable && staff.handles.len() < staff.workers_max && !state.stopped {
            let (Some(core), Some(job)) = (self.itself.upgrade(), staff.job.clone()) else { return };
            let name = format!("weir-plugins-{}", staff.handles.len());
            let work = move || {
                core.state.lock().staff.starting -= 1;
                job(&core);
            };
            match sync::spawn(name, work) {
                Ok(handle) => staff.handles.push(handle),
                // Those there are go on with what is ready; the next batch tries again.
                Err(error) => return tracing::warn!(%error, "failed to start a thread for plugins"),
            }
            staff.starting += 1;
        }
    }

    /// The workers' threads, which end once the core is stopped.
    pub(crate) fn dismiss(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.state.lock();
        state.staff.job = None;
        std::mem::take(&mut state.staff.handles)
    }

    fn done(&self, id: FlightId) -> CommitDone {
        let returned = self.returned.clone();
        Box::new(move |result| {
            let result = result.map(|_| ()).map_err(ProduceError::of_commit);
            // Nobody listens only when the broker was dropped: then everybody was answered.
            let _ = returned.send(Returned::Commit(id, result));
        })
    }

    fn move_marks(&self, watermarks: &[(PartitionId, Offset)]) {
        if watermarks.is_empty() {
            return;
        }
        let slots = self.slots.read();
        for (partition, offset) in watermarks {
            if let Some(slot) = slots.get(partition) {
                slot.mark.send_if_modified(|mark| match mark {
                    Mark::At(before) if *before < *offset => {
                        *mark = Mark::At(*offset);
                        true
                    }
                    _ => false,
                });
            }
        }
    }

    /// The answers thread: everything that came back at once is taken in at once.
    fn take_in(&self, from_store: &Receiver<Returned>) {
        while let Ok(first) = from_store.recv() {
            let mut stop = false;
            self.sequence(|sequencer, effects| {
                for returned in std::iter::once(first).chain(from_store.try_iter()) {
                    match returned {
                        Returned::Commit(id, result) => sequencer.committed(id, result, effects),
                        Returned::Stop => stop = true,
                    }
                }
            });
            if stop {
                return;
            }
        }
    }

    /// Waits for a batch to run; `None` when the broker stops.
    pub(crate) fn next_work(&self) -> Option<(Work, Arc<Slot>)> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(work) = state.sequencer.take_work() {
                let slot = self.slots.read().get(&work.partition).cloned();
                return Some((work, slot.expect("a lane has a slot")));
            }
            state.staff.waiting += 1;
            while state.staff.called == 0 && !state.stopped {
                self.work.wait(&mut state);
            }
            state.staff.waiting -= 1;
            state.staff.called = state.staff.called.saturating_sub(1);
        }
    }

    pub(crate) fn slot(&self, id: PartitionId) -> Option<Arc<Slot>> {
        self.slots.read().get(&id).cloned()
    }

    /// Adds a partition for workers and readers; its lane comes next.
    pub(crate) fn add_slot(&self, slot: Arc<Slot>) {
        self.slots.write().insert(slot.id, slot);
    }

    /// Removes a partition; its lane was removed before.
    pub(crate) fn remove_slot(&self, id: PartitionId) {
        if let Some(slot) = self.slots.write().remove(&id) {
            slot.mark.send_replace(Mark::Gone);
        }
    }

    /// Refuses new batches, and waits until those accepted are answered.
    pub(crate) async fn drain(&self) {
        {
            let mut state = self.state.lock();
            state.closing = true;
            state.sequencer.close();
            self.execute(state, Effects::default());
        }
        let mut idle = self.idle.subscribe();
        // The sender lives in `self`, so this ends with the value and never with an error.
        let _ = idle.wait_for(|idle| *idle).await;
    }

    /// Ends workers and the answers thread, and answers everybody who still waits. Idempotent.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.closing = true;
        state.sequencer.close();
        self.execute(state, Effects::default());
        self.work.notify_all();
        let _ = self.returned.send(Returned::Stop);
        for slot in self.slots.read().values() {
            slot.mark.send_if_modified(|mark| {
                let was_open = matches!(mark, Mark::At(_));
                if was_open {
                    *mark = Mark::Closing;
                }
                was_open
            });
        }
    }
}

fn answer(answers: Vec<(Waiter, Outcome)>) {
    for (waiter, outcome) in answers {
        // Whoever dropped its ticket does not want to know.
        let _ = waiter.send(outcome);
    }
}
