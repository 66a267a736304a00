//! The one place where an error of the core becomes a numbered error of the wire, for every door.
//!
//! Owns the mapping. The text walks the chain of causes, because a peer cannot ask for `source()`.

use std::error::Error;

use protocol::{BatchError, ErrorCode, WireError};
use storage::{CommitError, ReadError};

use super::{
    BackupError, CatalogError, DeployError, FetchError, PluginError, ProduceError, TopicError, UnknownTopicOrPartition,
};

/// How long a producer had better wait when the broker is busy: some batches' worth of a pipeline.
const OVERLOADED_RETRY_AFTER_MS: u32 = 100;

/// How long anybody had better wait when the disk takes no writes: it takes seconds for space or the disk to return,
/// and each retry sends a batch again.
const DISK_RETRY_AFTER_MS: u32 = 1_000;

impl ProduceError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            ProduceError::PartitionGone => ErrorCode::UnknownTopic,
            ProduceError::Batch(error) => batch_code(error),
            ProduceError::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
            ProduceError::KeyMissing { .. } => ErrorCode::InvalidRecord,
            ProduceError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequence,
            ProduceError::ProducerFenced { .. } => ErrorCode::ProducerFenced,
            ProduceError::TooManyInFlight
            | ProduceError::TransformBusy { .. }
            | ProduceError::CommitTooLarge { .. } => ErrorCode::Overloaded,
            ProduceError::RoutedTooLarge { .. } => ErrorCode::LimitExceeded,
            ProduceError::Paused { .. } => ErrorCode::TransformPaused,
            ProduceError::TargetGone | ProduceError::CommitUnknown { .. } => ErrorCode::CommitUnknown,
            ProduceError::ReadOnly { .. } => ErrorCode::ReadOnly,
            ProduceError::Full { .. } => ErrorCode::DiskFull,
            ProduceError::ShuttingDown => ErrorCode::ShuttingDown,
            ProduceError::Internal { .. } => ErrorCode::Internal,
        }
    }
}

/// An error and its causes, in one line: a peer sees only this.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn wire(code: ErrorCode, error: &dyn Error) -> WireError {
    let retry_after_ms = match code {
        ErrorCode::Overloaded => OVERLOADED_RETRY_AFTER_MS,
        ErrorCode::ReadOnly | ErrorCode::DiskFull => DISK_RETRY_AFTER_MS,
        _ => 0,
    };
    WireError { code, text: chain(error), retry_after_ms }
}

fn batch_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
        BatchError::TooLarge { .. }
        | BatchError::TooManyRecords { .. }
        | BatchError::TooManyHeaders { .. }
        | BatchError::Budget { .. } => ErrorCode::LimitExceeded,
        BatchError::NotProducible { .. } => ErrorCode::InvalidRequest,
        _ => ErrorCode::CorruptBatch,
    }
}

impl From<&CatalogError> for ErrorCode {
    fn from(error: &CatalogError) -> ErrorCode {
        match error {
            CatalogError::Commit(CommitError::ReadOnly { .. }) => ErrorCode::ReadOnly,
            CatalogError::Commit(CommitError::Full { .. }) => ErrorCode::DiskFull,
            CatalogError::Commit(CommitError::ShuttingDown) | CatalogError::ShuttingDown => ErrorCode::ShuttingDown,
            CatalogError::Commit(CommitError::Failed { .. }) => ErrorCode::CommitUnknown,
            CatalogError::Commit(_) => ErrorCode::Internal,
        }
    }
}

/// How each error travels.
macro_rules! on_the_wire {
    ($($error:ty: $code:expr;)*) => {
        $(impl From<&$error> for WireError {
            fn from(error: &$error) -> WireError {
                let code: fn(&$error) -> ErrorCode = $code;
                wire(code(error), error)
            }
        }

        impl From<$error> for WireError {
            fn from(error: $error) -> WireError {
                WireError::from(&error)
            }
        })*
    };
}

on_the_wire! {
    UnknownTopicOrPartition: |error| match error {
        UnknownTopicOrPartition::Topic(_) => ErrorCode::UnknownTopic,
        UnknownTopicOrPartition::Partition { .. } => ErrorCode::UnknownPartition,
    };
    ProduceError: ProduceError::code;
    FetchError: |error| match error {
        FetchError::PartitionGone => ErrorCode::UnknownTopic,
        FetchError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FetchError::Read(error) => read_code(error),
        FetchError::ShuttingDown => ErrorCode::ShuttingDown,
    };
    BackupError: |error| match error {
        BackupError::NotAbsolute { .. } => ErrorCode::InvalidRequest,
        BackupError::UnderWay { .. } | BackupError::Thread(_) | BackupError::Store(_) => ErrorCode::BackupFailed,
        BackupError::Panicked => ErrorCode::Internal,
    };
    CatalogError: |error| ErrorCode::from(error);
    TopicError: |error| match error {
        TopicError::Unknown(_) => ErrorCode::UnknownTopic,
        TopicError::ExistsOtherwise { .. } => ErrorCode::AlreadyExists,
        TopicError::Partitions { .. } | TopicError::TooManyPartitions { .. } | TopicError::RecordBytes { .. } => {
            ErrorCode::LimitExceeded
        }
        TopicError::Shrink { .. } | TopicError::Target { .. } | TopicError::RecordBytesOfTarget { .. } => {
            ErrorCode::InvalidRequest
        }
        TopicError::Catalog(error) => error.into(),
    };
    PluginError: |error| match error {
        PluginError::Unknown(_) => ErrorCode::UnknownPlugin,
        PluginError::InUse { .. } => ErrorCode::PluginInUse,
        PluginError::TooLarge { .. } | PluginError::TooMany => ErrorCode::LimitExceeded,
        PluginError::Refused(_) => ErrorCode::InvalidPlugin,
        PluginError::NotExamined(_) | PluginError::TooManyUploads => ErrorCode::Overloaded,
        PluginError::Cancelled => ErrorCode::Cancelled,
        PluginError::File { .. } => ErrorCode::Internal,
        PluginError::Catalog(error) => error.into(),
    };
    DeployError: |error| match error {
        DeployError::UnknownTopic(_) => ErrorCode::UnknownTopic,
        DeployError::UnknownPlugin(_) => ErrorCode::UnknownPlugin,
        DeployError::UnknownTransform { .. } => ErrorCode::UnknownTransform,
        DeployError::TooManyTargets { .. } | DeployError::TooManyStages(_) => ErrorCode::LimitExceeded,
        DeployError::Name(_)
        | DeployError::BesideItself(_)
        | DeployError::UnknownTarget(_)
        | DeployError::TargetTwice(_)
        | DeployError::TargetTooSmall { .. }
        | DeployError::DeadLetter { .. }
        | DeployError::Refused(_) => ErrorCode::InvalidTransform,
        DeployError::Plugin { .. } => ErrorCode::Internal,
        DeployError::Catalog(error) => error.into(),
    };
}

fn read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::UnknownPartition { .. } => ErrorCode::UnknownTopic,
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. } => ErrorCode::CorruptData,
        ReadError::Io { .. } => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_no_writes_is_worth_a_later_retry() {
        let why = || "`storage.budget` of 1 GiB is used up".to_owned();
        for (commit, code) in [
            (CommitError::Full { why: why() }, ErrorCode::DiskFull),
            (CommitError::ReadOnly { why: why() }, ErrorCode::ReadOnly),
        ] {
            let produce = ProduceError::of_commit(commit.clone());
            assert!(produce.is_retriable(), "{produce}");
            for error in [WireError::from(produce), WireError::from(CatalogError::Commit(commit))] {
                assert_eq!(error.code, code);
                assert!(error.code.is_retryable() && error.retry_after_ms > 0, "{error:?}");
                assert!(error.text.ends_with(&why()), "{error}");
            }
        }
    }
}
