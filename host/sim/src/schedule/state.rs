//! Who waits for what, and whose turn it is.

use std::{sync::Arc, time::Duration};

use parking_lot::Condvar;
use storage::sync::{Place, ThreadId};

use crate::rng::Rng;

/// What a thread is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ready,
    Running,
    /// It has tried to take a lock, perhaps again; another thread has to run before it is worth trying once more.
    Contending {
        again: bool,
    },
    Waiting {
        place: Place,
        until: Option<Duration>,
    },
    Ended,
}

struct Thread {
    name: String,
    status: Status,
    /// How its last wait ended.
    woken: bool,
    /// At which point of all progress it gave its turn away.
    tried_at: u64,
    turn: Arc<Condvar>,
}

/// See the module.
pub(super) struct State {
    pub(super) running: ThreadId,
    pub(super) now: Duration,
    /// The program has returned, or nobody can go on.
    pub(super) is_over: bool,
    threads: Vec<Thread>,
    rng: Rng,
    /// In so many chances to switch it is done once.
    switch_interval: usize,
    turns: u64,
    turns_max: u64,
    /// Moves whenever a thread has got anywhere.
    progress: u64,
    on_stuck: Option<Box<dyn FnOnce(String) + Send>>,
}

impl State {
    pub(super) fn new(seed: u64, turns_max: u64, on_stuck: Box<dyn FnOnce(String) + Send>) -> State {
        let mut rng = Rng::new(seed);
        // Some runs switch all the time, others hardly ever: faults hide in both.
        let switch_interval = rng.pick(&[2, 6, 20, 100]);
        State {
            running: ThreadId(0),
            now: Duration::ZERO,
            is_over: false,
            threads: Vec::new(),
            rng,
            switch_interval,
            turns: 0,
            turns_max,
            progress: 1,
            on_stuck: Some(on_stuck),
        }
    }

    pub(super) fn begin(&mut self, name: &str) -> ThreadId {
        let id = ThreadId(self.threads.len() as u32);
        let status = if self.threads.is_empty() { Status::Running } else { Status::Ready };
        let turn = Arc::new(Condvar::new());
        self.threads.push(Thread { name: name.to_owned(), status, woken: false, tried_at: 0, turn });
        id
    }

    pub(super) fn turn_of(&self, id: ThreadId) -> Arc<Condvar> {
        self.threads[id.0 as usize].turn.clone()
    }

    pub(super) fn was_woken(&self, id: ThreadId) -> bool {
        self.threads[id.0 as usize].woken
    }

    pub(super) fn has_ended(&self, id: ThreadId) -> bool {
        self.threads[id.0 as usize].status == Status::Ended
    }

    pub(super) fn set(&mut self, id: ThreadId, status: Status) {
        // Who only tried again has changed nothing for the others.
        if status != (Status::Contending { again: true }) {
            self.progress += 1;
        }
        let thread = &mut self.threads[id.0 as usize];
        (thread.status, thread.tried_at) = (status, self.progress);
    }

    pub(super) fn is_time_to_switch(&mut self) -> bool {
        self.threads.len() > 1 && self.rng.below(self.switch_interval) == 0
    }

    pub(super) fn wake(&mut self, place: Place, all: bool) {
        let waits = |thread: &Thread| matches!(thread.status, Status::Waiting { place: at, .. } if at == place);
        let waiting = self.threads.iter().filter(|thread| waits(thread)).count();
        if waiting == 0 {
            return;
        }
        let chosen = if all || waiting == 1 { None } else { Some(self.rng.below(waiting)) };
        let threads = self.threads.iter_mut().filter(|thread| waits(thread)).enumerate();
        for (number, thread) in threads {
            if chosen.is_none_or(|chosen| chosen == number) {
                (thread.status, thread.woken) = (Status::Ready, true);
            }
        }
    }

    /// Decides whose turn it is.
    pub(super) fn choose(&mut self) {
        self.turns += 1;
        loop {
            let can_run = |thread: &Thread| match thread.status {
                Status::Ready => true,
                Status::Contending { .. } => thread.tried_at < self.progress,
                Status::Running | Status::Waiting { .. } | Status::Ended => false,
            };
            let count = self.threads.iter().filter(|thread| can_run(thread)).count();
            if count > 0 && self.turns < self.turns_max {
                let chosen = self.rng.below(count);
                let mut able = (0..).zip(&self.threads).filter(|(_, thread)| can_run(thread));
                let (id, _) = able.nth(chosen).expect("one of those that were counted");
                self.running = ThreadId(id);
                self.threads[id as usize].status = Status::Running;
                return;
            }
            if self.turns >= self.turns_max || !self.pass_time() {
                return self.stop();
            }
        }
    }

    /// Lets time pass until somebody has waited long enough; `false` when nobody waits for that.
    fn pass_time(&mut self) -> bool {
        let until = |thread: &Thread| match thread.status {
            Status::Waiting { until, .. } => until,
            _ => None,
        };
        let Some(next) = self.threads.iter().filter_map(until).min() else { return false };
        self.now = self.now.max(next);
        for thread in self.threads.iter_mut().filter(|thread| until(thread).is_some_and(|until| until <= next)) {
            (thread.status, thread.woken) = (Status::Ready, false);
        }
        self.progress += 1;
        true
    }

    fn stop(&mut self) {
        self.is_over = true;
        let told = |thread: &Thread| match thread.status {
            Status::Ended => None,
            status => Some(format!("`{}` is {status:?}", thread.name)),
        };
        let who = self.threads.iter().filter_map(told).collect::<Vec<_>>().join(", ");
        if let Some(on_stuck) = self.on_stuck.take() {
            on_stuck(format!("after {} turns and {:?}: {who}", self.turns, self.now));
        }
    }
}
