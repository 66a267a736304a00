//! Looks at files that may be damaged in a process of its own: redb can panic on bad bytes, loop over them, or ask for
//! more memory than there is, and that must not end a broker.
//!
//! Owns both ends: [`ChildProber`] runs this binary again (`weir internal probe`), with bounds on memory and time, and
//! reads the one line that it answers ([`Answer`]). A child that dies or does not come to an end says by that that the
//! file is damaged.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use storage::{FileSystem, OpenError, ProbedFile, Prober};

use crate::{clock::Stopwatch, cmd::kind_name};

/// Address space of the child: half of it is what the allocator takes to begin with, and a sound file needs a few MiB.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// What the child may take however small the file is, in seconds.
const SECONDS_MIN: u64 = 60;

/// How much of a file the child gets through in a second at the very least: slow flash reads that much.
const BYTES_PER_SECOND_MIN: u64 = 4 << 20;

/// What is read of an answer: names of files and what redb says are short.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How often the parent looks whether the child is done.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks at suspect files of the host in another process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ChildProber;

impl Prober for ChildProber {
    fn probe(&self, _: &dyn FileSystem, path: &Path, file: ProbedFile) -> Result<u64, OpenError> {
        let io = |source| OpenError::Io {
            action: "run another process to look at",
            file: path.display().to_string(),
            source,
        };
        let mut child = spawn(path, file).map_err(io)?;
        let wait = Duration::from_secs(seconds_for(path));
        match wait_for(&mut child, wait).map_err(io)? {
            Ended::Late => Err(damaged(path, format!("redb did not come to an end with it in {} s", wait.as_secs()))),
            Ended::Itself(status) => read_answer(child, status, path),
        }
    }
}

fn spawn(path: &Path, file: ProbedFile) -> io::Result<Child> {
    Command::new(own_binary()?)
        .args(["internal", "probe", kind_name(file), "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // What a panic prints says nothing that the answer does not.
        .stderr(Stdio::null())
        .spawn()
}

/// The running binary, also where an upgrade has put another one in its place.
fn own_binary() -> io::Result<PathBuf> {
    let itself = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && itself.exists() { Ok(itself.to_owned()) } else { std::env::current_exe() }
}

/// How long a file may take, in seconds.
fn seconds_for(path: &Path) -> u64 {
    SECONDS_MIN + fs::metadata(path).map_or(0, |metadata| metadata.len() / BYTES_PER_SECOND_MIN)
}

enum Ended {
    Itself(ExitStatus),
    Late,
}

/// Waits for the child, and ends it when it takes too long. Its answer is shorter than what a pipe holds.
fn wait_for(child: &mut Child, wait: Duration) -> io::Result<Ended> {
    let watch = Stopwatch::start();
    while watch.elapsed() < wait {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Itself(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    child.wait()?;
    Ok(Ended::Late)
}

fn read_answer(child: Child, status: ExitStatus, path: &Path) -> Result<u64, OpenError> {
    let mut line = Vec::new();
    if let Some(stdout) = child.stdout {
        // What cannot be read is no answer.
        let _ = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut line);
    }
    match serde_json::from_slice::<Answer>(&line) {
        Ok(answer) if status.success() => answer.into_result(path),
        _ => Err(damaged(path, format!("redb ended with it ({status})"))),
    }
}

fn damaged(path: &Path, what: String) -> OpenError {
    OpenError::Damaged { file: path.display().to_string(), what }
}

/// Bounds this process, which is about to look at `path`, and has it end with its parent. Where the system knows no such
/// bound, the parent's patience remains.
#[cfg(unix)]
pub(crate) fn confine(path: &Path) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let at_most = |bound| Rlimit { current: Some(bound), maximum: Some(bound) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    setrlimit(Resource::As, at_most(MEMORY_BYTES_MAX))?;
    setrlimit(Resource::Cpu, at_most(seconds_for(path)))?;
    // A core file would be a second copy of what is private.
    setrlimit(Resource::Core, at_most(0))?;
    Ok(())
}

/// Without limits of the system's the parent's patience is the bound.
#[cfg(not(unix))]
pub(crate) fn confine(_: &Path) -> io::Result<()> {
    Ok(())
}

/// What the child says: [`storage::probe`]'s result, field by field, so that the parent tells a newer format from damage.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    LastSequence(u64),
    NewerFormat { file: String, found: u32, supported: u32 },
    Damaged { file: String, what: String },
    Io { file: String, os_error: Option<i32>, text: String },
}

impl Answer {
    /// What there is to say of a result.
    pub(crate) fn of(result: Result<u64, OpenError>) -> Answer {
        match result {
            Ok(last_sequence) => Answer::LastSequence(last_sequence),
            Err(OpenError::NewerFormat { file, found, supported }) => Answer::NewerFormat { file, found, supported },
            Err(OpenError::Damaged { file, what }) => Answer::Damaged { file, what },
            Err(OpenError::Io { file, source, .. }) => {
                Answer::Io { file, os_error: source.raw_os_error(), text: source.to_string() }
            }
            // A probe takes no lock.
            Err(error @ OpenError::InUse { .. }) => {
                Answer::Io { file: String::new(), os_error: None, text: error.to_string() }
            }
        }
    }

    fn into_result(self, path: &Path) -> Result<u64, OpenError> {
        Err(match self {
            Answer::LastSequence(last_sequence) => return Ok(last_sequence),
            Answer::NewerFormat { file, found, supported } => OpenError::NewerFormat { file, found, supported },
            Answer::Damaged { file, what } => OpenError::Damaged { file, what },
            Answer::Io { os_error, text, .. } => {
                let source = os_error.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error);
                OpenError::Io { action: "look at", file: path.display().to_string(), source }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_comes_back_as_it_was_found() {
        let found = [
            Ok(7),
            Err(OpenError::NewerFormat { file: "f".into(), found: 9, supported: 1 }),
            Err(OpenError::Damaged { file: "f".into(), what: "w".into() }),
            Err(OpenError::Io { action: "look at", file: "f".into(), source: io::Error::from_raw_os_error(2) }),
        ];
        for result in found {
            let said = format!("{result:?}");
            let line = serde_json::to_string(&Answer::of(result)).unwrap();
            let answer: Answer = serde_json::from_str(&line).unwrap();
            assert_eq!(format!("{:?}", answer.into_result(Path::new("f"))), said);
        }
    }

    fn sh(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_child_that_dies_or_says_nonsense_means_damage_and_the_cause_is_named() {
        for (script, cause) in [
            ("kill -ABRT $$", "SIGABRT"),
            ("echo '{\"last_sequence\":7}'; kill -KILL $$", "SIGKILL"),
            ("exit 101", "101"),
            ("echo panic", "exit status: 0"),
        ] {
            let mut child = sh(script);
            let Ended::Itself(status) = wait_for(&mut child, Duration::from_secs(60)).unwrap() else {
                panic!("`{script}` did not end")
            };
            match read_answer(child, status, Path::new("f")) {
                Err(OpenError::Damaged { file, what }) => assert!(file == "f" && what.contains(cause), "{what}"),
                other => panic!("`{script}` gave {other:?}"),
            }
        }
    }

    #[test]
    fn a_child_that_goes_on_for_ever_is_ended() {
        let mut child = sh("exec sleep 1000");
        assert!(matches!(wait_for(&mut child, Duration::from_millis(20)).unwrap(), Ended::Late));
        assert!(child.try_wait().unwrap().is_some());
    }
}
