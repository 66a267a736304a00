//! CPU time of the thread, taken in pairs.

use std::time::Duration;

use crate::figure::median;

/// What one turn of either side takes at least: far more than reading the clock.
const TURN: Duration = Duration::from_millis(2);

/// CPU time this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Nanoseconds of the thread's CPU time, each for doing the work once.
pub(crate) struct Pairs {
    taken: Vec<(f64, f64)>,
}

impl Pairs {
    /// How many times the other's time the one takes.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.taken.iter().map(|(one, other)| one / other))
    }

    /// How much longer the one takes.
    pub(crate) fn difference(&self) -> f64 {
        median(self.taken.iter().map(|(one, other)| one - other))
    }

    pub(crate) fn one(&self) -> f64 {
        median(self.taken.iter().map(|(one, _)| *one))
    }

    pub(crate) fn other(&self) -> f64 {
        median(self.taken.iter().map(|(_, other)| *other))
    }
}

/// Does the one and the other in turns, whose order changes, after one of each that does not count.
pub(crate) fn pairs(turns: usize, mut one: impl FnMut(), mut other: impl FnMut()) -> Pairs {
    let (one_times, other_times) = (times_in_a_turn(&mut one), times_in_a_turn(&mut other));
    let mut taken = Vec::with_capacity(turns);
    for turn in 0..turns {
        if turn.is_multiple_of(2) {
            let first = ns_each(one_times, &mut one);
            taken.push((first, ns_each(other_times, &mut other)));
        } else {
            let first = ns_each(other_times, &mut other);
            taken.push((ns_each(one_times, &mut one), first));
        }
    }
    Pairs { taken }
}

/// What doing the work once takes, in nanoseconds.
pub(crate) fn alone(turns: usize, mut work: impl FnMut()) -> f64 {
    let times = times_in_a_turn(&mut work);
    median((0..turns).map(|_| ns_each(times, &mut work)))
}

fn times_in_a_turn(work: &mut impl FnMut()) -> u32 {
    let mut times = 1;
    while ns_each(times, work) * f64::from(times) < TURN.as_nanos() as f64 {
        times *= 2;
    }
    times
}

fn ns_each(times: u32, work: &mut impl FnMut()) -> f64 {
    let began = thread_cpu();
    for _ in 0..times {
        work();
    }
    (thread_cpu() - began).as_nanos() as f64 / f64::from(times)
}
