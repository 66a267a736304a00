//! This binary run again, as a process that may die of what it is given: what its owners share.
//!
//! Owns how such a child is started, bounded ([`confine`], which it calls itself, first of all), waited for and ended.
//! What it is given and what it answers is its owner's: `prober.rs` and `compiler.rs`.
//!
//! Invariants
//! - A child never outlives its [`Child`], nor this process.
//! - It has the pipes it is given and nothing else of ours: descriptors of this program are closed when another one is
//!   run, and its environment is [`ENVIRONMENT`].

use std::{
    io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::clock::Stopwatch;

/// How often the parent looks whether a child is done.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// All that a child finds in its environment. The allocator would take 1 GiB of addresses to begin with, writable, which
/// counts as memory although most of it is never touched.
const ENVIRONMENT: [(&str, &str); 2] = [("MIMALLOC_ARENA_RESERVE", "32M"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0")];

/// The running binary with these arguments, no environment, and no descriptors: pipes are for the caller to ask for.
pub(crate) fn command(args: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(own_binary()?);
    command.args(args).env_clear().envs(ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// The running binary, also where an upgrade has put another one in its place.
fn own_binary() -> io::Result<PathBuf> {
    let itself = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && itself.exists() { Ok(itself.to_owned()) } else { std::env::current_exe() }
}

/// A running child; ended and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Child(std::process::Child);

/// How waiting for a child came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The child ended.
    Itself(ExitStatus),
    /// It took too long, and was ended.
    Late,
    /// Nobody waited any more, and it was ended.
    Cancelled,
}

impl Child {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
        command.spawn().map(Child)
    }

    /// Waits for its end, and brings it about when it takes too long or nobody waits any more. What it writes must be
    /// read meanwhile, unless that is less than a pipe holds.
    pub(crate) fn wait_at_most(&mut self, wait: Duration, is_cancelled: impl Fn() -> bool) -> io::Result<Ended> {
        let watch = Stopwatch::start();
        let ended = loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Ended::Itself(status));
            }
            if is_cancelled() {
                break Ended::Cancelled;
            }
            if watch.elapsed() >= wait {
                break Ended::Late;
            }
            std::thread::sleep(LOOK_EVERY);
        };
        self.end()?;
        Ok(ended)
    }

    fn end(&mut self) -> io::Result<()> {
        self.kill()?;
        self.wait().map(drop)
    }
}

impl Deref for Child {
    type Target = std::process::Child;

    fn deref(&self) -> &std::process::Child {
        &self.0
    }
}

impl DerefMut for Child {
    fn deref_mut(&mut self) -> &mut std::process::Child {
        &mut self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that was waited for is not signalled: its number may be another's by now, which std knows.
        let _ended_already = self.end();
    }
}

/// What a child may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Memory that it writes to, in bytes.
    pub(crate) memory_bytes: u64,
    /// CPU time, in seconds.
    pub(crate) cpu_seconds: u64,
}

/// Addresses a child may have beyond its memory: the program itself, and what its allocator has reserved and not taken.
#[cfg(unix)]
const SPARE_ADDRESS_BYTES: u64 = 256 << 20;

/// Bounds this process, and has it end with its parent. It can write to no file. Where the system knows no such bound,
/// the parent's patience remains.
#[cfg(unix)]
pub(crate) fn confine(bounds: Bounds) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // What this process may not raise stays where it is.
    let limit = |resource, soft: u64, hard: u64| {
        let hard = getrlimit(resource).maximum.map_or(hard, |now| now.min(hard));
        setrlimit(resource, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) })
    };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let addresses = bounds.memory_bytes.saturating_add(SPARE_ADDRESS_BYTES);
    limit(Resource::Data, bounds.memory_bytes, bounds.memory_bytes)?;
    limit(Resource::As, addresses, addresses)?;
    // At the soft limit comes the signal that says so (SIGXCPU), a second later one that does not.
    limit(Resource::Cpu, bounds.cpu_seconds, bounds.cpu_seconds.saturating_add(1))?;
    limit(Resource::Fsize, 0, 0)?;
    // A core file would be a second copy of what is private.
    limit(Resource::Core, 0, 0)?;
    Ok(())
}

/// Without limits of the system's the parent's patience is the bound.
#[cfg(not(unix))]
pub(crate) fn confine(_: Bounds) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Child::spawn(Command::new("sleep").arg("1000")).unwrap()
    }

    #[test]
    fn a_child_that_goes_on_for_ever_is_ended() {
        let mut child = sleeper();
        assert!(matches!(child.wait_at_most(Duration::from_millis(20), || false).unwrap(), Ended::Late));
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_child_that_nobody_waits_for_is_ended() {
        let mut child = sleeper();
        assert!(matches!(child.wait_at_most(Duration::from_secs(600), || true).unwrap(), Ended::Cancelled));
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_does_not_outlive_its_handle() {
        let child = sleeper();
        let there = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(there.exists());
        drop(child);
        assert!(!there.exists());
    }
}
