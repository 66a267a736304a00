//! How a command ends: the table of exit codes, and the error that carries one of them with advice.
//!
//! Owns the numbers, which scripts rely on and which never change their meaning. Never prints.
//!
//! Start at [`Exit`].

use std::{error::Error, fmt};

use client::{AdminError, ConnectError, ConsumeError, ProduceError};
use protocol::{ErrorCode, WireError};
use serde_json::json;

use crate::output::Closed;

/// What the process ends with. Shown by `weir --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It is done.
    Done = 0,
    /// It failed for a reason that has no number of its own.
    Failed = 1,
    /// The command line is wrong (clap ends with this number as well).
    Usage = 2,
    /// No broker answered.
    NoBroker = 3,
    /// The broker does not know the identity, or the identity lacks the right.
    NotAllowed = 4,
    /// There is no such topic, partition, plugin or transform.
    NotFound = 5,
    /// What was given is refused: invalid, over a limit, or in conflict with what exists.
    Refused = 6,
    /// The broker cannot start: data directory in use, of a newer format or damaged, or the port is taken.
    CannotServe = 7,
    /// All was sent, but some records were rejected.
    RecordsRejected = 8,
    /// It was done, and data was found that is not as it was written.
    Damaged = 9,
    /// The plugin does not always answer the same record alike.
    NotDeterministic = 10,
}

/// The table as `weir --help` shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  1  failed for another reason
  2  the command line is wrong
  3  no broker answered
  4  the identity is not known to the broker, or lacks the right
  5  no such topic, partition, plugin or transform
  6  refused: invalid, over a limit, or in conflict with what exists
  7  the broker cannot start (directory in use, newer or damaged; port taken)
  8  sent, but some records were rejected
  9  damaged data was found
  10 the plugin does not always answer the same record alike";

/// An error of the command line itself: what is wrong, how to end, and what to try next.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What is wrong: lower case, no full stop.
    pub(crate) text: String,
    /// What to try next; empty when the text says it.
    pub(crate) advice: String,
    /// What caused it.
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// An error without a cause of its own.
    pub(crate) fn new(exit: Exit, text: impl Into<String>, advice: impl Into<String>) -> Failure {
        Failure { exit, text: text.into(), advice: advice.into(), source: None }
    }

    /// The same, caused by `source`.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// How a person is told of an error: the chain in one line, and the advice of its innermost part that has any.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) exit: Exit,
    pub(crate) text: String,
    pub(crate) advice: String,
    /// The broker's own word for it, where it was the broker that refused.
    pub(crate) code: Option<ErrorCode>,
}

impl Report {
    /// What to tell of `error`; `None` when nothing went wrong but that the reader of stdout left.
    pub(crate) fn of(error: &anyhow::Error) -> Option<Report> {
        if error.chain().any(|cause| cause.is::<Closed>()) {
            return None;
        }
        let mut report = Report { exit: Exit::Failed, text: text(error), advice: String::new(), code: None };
        for cause in error.chain() {
            report.learn(cause);
        }
        Some(report)
    }

    /// For a person: what went wrong, then what to try.
    pub(crate) fn to_text(&self) -> String {
        let advice = if self.advice.is_empty() { String::new() } else { format!("\n  try: {}", self.advice) };
        format!("error: {}{advice}", self.text)
    }

    /// For a program: one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        let code = self.code.map(ErrorCode::as_str);
        json!({ "error": self.text, "code": code, "exit": self.exit as u8, "advice": self.advice }).to_string()
    }

    /// Takes what one part of the chain knows: the innermost one that knows anything wins.
    fn learn(&mut self, cause: &(dyn Error + 'static)) {
        let code = if let Some(failure) = cause.downcast_ref::<Failure>() {
            self.exit = failure.exit;
            self.advice.clone_from(&failure.advice);
            return;
        } else if let Some(error) = cause.downcast_ref::<ConnectError>() {
            self.connecting(error);
            return;
        } else if let Some(error) = cause.downcast_ref::<WireError>() {
            Some(error.code)
        } else if let Some(error) = cause.downcast_ref::<AdminError>() {
            self.timeout(matches!(error, AdminError::TimedOut { code: None, .. }));
            error.code()
        } else if let Some(error) = cause.downcast_ref::<ProduceError>() {
            self.timeout(matches!(error, ProduceError::TimedOut { code: None, .. }));
            error.code()
        } else if let Some(error) = cause.downcast_ref::<ConsumeError>() {
            error.code()
        } else {
            None
        };
        if let Some(code) = code {
            self.code = Some(code);
            self.exit = of_code(code);
            self.advice = code.advice().to_owned();
        }
    }

    fn connecting(&mut self, error: &ConnectError) {
        let (exit, advice) = match error {
            ConnectError::WrongIdentity { .. } | ConnectError::Identity(_) => {
                (Exit::NotAllowed, "give the identity file of that broker: `--identity FILE`, or its `--data-dir DIR`")
            }
            ConnectError::Refusal { error, .. } => {
                self.code = Some(error.code);
                (of_code(error.code), error.code.advice())
            }
            _ => (Exit::NoBroker, "start one with `weir serve`, or say where it is: `--broker HOST:PORT`"),
        };
        self.exit = exit;
        self.advice = advice.to_owned();
    }

    fn timeout(&mut self, timed_out: bool) {
        if timed_out {
            self.exit = Exit::NoBroker;
            self.advice = "see whether the broker runs: `weir status`".to_owned();
        }
    }
}

/// The chain in one line; a cause that its parent quotes already is not said twice.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.is_empty() {
            text = part;
        } else if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

fn of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::Unauthenticated | ErrorCode::Unauthorized => Exit::NotAllowed,
        ErrorCode::UnknownTopic
        | ErrorCode::UnknownPartition
        | ErrorCode::UnknownPlugin
        | ErrorCode::UnknownTransform => Exit::NotFound,
        ErrorCode::InvalidRequest
        | ErrorCode::LimitExceeded
        | ErrorCode::AlreadyExists
        | ErrorCode::RecordTooLarge
        | ErrorCode::InvalidRecord
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::InvalidPlugin
        | ErrorCode::PluginInUse
        | ErrorCode::InvalidTransform
        | ErrorCode::BackupFailed => Exit::Refused,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_with_its_own_code_and_advice() {
        let error = AdminError::Refused(WireError::new(ErrorCode::UnknownTopic, "topic `x` does not exist"));
        let report = Report::of(&anyhow::Error::new(error)).unwrap();
        assert_eq!(report.exit, Exit::NotFound);
        assert_eq!(report.to_text(), "error: topic `x` does not exist\n  try: create it: `weir topic create NAME`");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["code"], &json["exit"]), (&"unknown_topic".into(), &5.into()));
    }

    #[test]
    fn a_retry_that_ran_out_of_time_tells_what_the_broker_said_at_last() {
        let timed_out = |last: &str, code| {
            let waited = std::time::Duration::from_secs(120);
            let error = ProduceError::TimedOut { waited, sent: true, last: last.to_owned(), code };
            Report::of(&anyhow::Error::new(error)).unwrap()
        };
        let full = timed_out("the disk is full: `storage.budget` of 1 GiB is used up", Some(ErrorCode::DiskFull));
        assert_eq!((full.exit, full.code), (Exit::Failed, Some(ErrorCode::DiskFull)));
        assert!(full.text.contains("`storage.budget` of 1 GiB") && full.advice.contains("weir status"), "{full:?}");
        assert_eq!(timed_out("no connection", None).exit, Exit::NoBroker);
    }

    #[test]
    fn the_chain_is_one_line_and_says_nothing_twice() {
        let inner = Failure::new(Exit::Refused, "no", "do this");
        let outer = Failure::new(Exit::Failed, "cannot go on", "").because(inner);
        let report = Report::of(&anyhow::Error::new(outer).context("asked: cannot go on")).unwrap();
        assert_eq!(report.text, "asked: cannot go on: no");
        assert_eq!((report.exit, report.advice.as_str()), (Exit::Refused, "do this"));
    }

    #[test]
    fn a_reader_that_leaves_is_no_error() {
        assert_eq!(Report::of(&anyhow::Error::new(Closed).context("writing")), None);
    }

    #[test]
    fn the_table_lists_every_exit() {
        for exit in 0..=Exit::Damaged as u8 {
            assert!(TABLE.contains(&format!("\n  {exit}  ")), "{exit} is not in the table");
        }
    }
}
