//! The only place of this crate that reads a clock or asks for chance.
//!
//! Owns wall time, the CPU time of the calling thread, the pause of the ticker, and the key of the compiled cache.
//! None of these ever reaches a guest: its clock is the record's timestamp, its randomness is seeded by its place.

use std::{
    fs::File,
    io::{self, Read as _},
    time::{Duration, Instant},
};

/// Wall time, for statistics and for telling a stalled box from a looping guest.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn wall() -> Instant {
    Instant::now()
}

/// CPU time the calling thread has used. A system call: about 0.2 us, so it is read at ticks and never per batch.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0).unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sleeps so long.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Thirty-two bytes nobody can guess, from the operating system.
pub(crate) fn secret() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}
