//! Looks at files that may be damaged in a process of its own: redb can panic on bad bytes, loop over them, or ask for
//! more memory than there is, and that must not end a broker.
//!
//! Owns both ends: [`ChildProber`] runs this binary again (`weir internal probe`), with bounds on memory and time, and
//! reads the one line that it answers ([`Answer`]). A child that dies or does not come to an end says by that that the
//! file is damaged.

use std::{
    fs, io,
    io::Read as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use storage::{FileSystem, OpenError, ProbedFile, Prober};

use crate::{
    child::{self, Bounds, Child, Ended},
    cmd::kind_name,
};

/// Memory of the child: a sound file needs a few MiB.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What the child may take however small the file is, in seconds.
const SECONDS_MIN: u64 = 60;

/// How much of a file the child gets through in a second at the very least: slow flash reads that much.
const BYTES_PER_SECOND_MIN: u64 = 4 << 20;

/// What is read of an answer: names of files and what redb says are short.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

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
        // Its answer is shorter than what a pipe holds.
        match child.wait_at_most(wait, || false).map_err(io)? {
            Ended::Late | Ended::Cancelled => {
                Err(damaged(path, format!("redb did not come to an end with it in {} s", wait.as_secs())))
            }
            Ended::Itself(status) => read_answer(child, status, path),
        }
    }
}

fn spawn(path: &Path, file: ProbedFile) -> io::Result<Child> {
    let mut command = child::command(&["internal", "probe", kind_name(file), "--"])?;
    // What a panic prints on stderr says nothing that the answer does not.
    Child::spawn(command.arg(path).stdout(Stdio::piped()))
}

/// How long a file may take, in seconds.
fn seconds_for(path: &Path) -> u64 {
    SECONDS_MIN + fs::metadata(path).map_or(0, |metadata| metadata.len() / BYTES_PER_SECOND_MIN)
}

fn read_answer(mut child: Child, status: ExitStatus, path: &Path) -> Result<u64, OpenError> {
    let mut line = Vec::new();
    if let Some(stdout) = child.stdout.take() {
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

/// What looking at a file may take.
pub(crate) fn bounds(path: &Path) -> Bounds {
    Bounds { memory_bytes: MEMORY_BYTES_MAX, cpu_seconds: seconds_for(path) }
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
    use std::process::Command;

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
        Child::spawn(Command::new("sh").args(["-c", script]).stdout(Stdio::piped())).unwrap()
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
            let Ended::Itself(status) = child.wait_at_most(Duration::from_secs(60), || false).unwrap() else {
                panic!("`{script}` did not end")
            };
            match read_answer(child, status, Path::new("f")) {
                Err(OpenError::Damaged { file, what }) => assert!(file == "f" && what.contains(cause), "{what}"),
                other => panic!("`{script}` gave {other:?}"),
            }
        }
    }
}
