//! The only place of these tests that reads a clock.

use std::time::{Duration, Instant};

/// A stretch of work on this thread.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch { cpu: thread_cpu(), wall: Instant::now() }
    }

    /// CPU time that this thread has used since: what is asked of an attack.
    pub(crate) fn cpu(&self) -> Duration {
        thread_cpu().saturating_sub(self.cpu)
    }

    /// Wall time since: for people to read, and never asked for.
    pub(crate) fn wall(&self) -> Duration {
        self.wall.elapsed()
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
