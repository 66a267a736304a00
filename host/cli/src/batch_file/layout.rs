//! How directories and files are called.

use protocol::{Offset, TopicName, TopicPartition};

/// What a file's name ends with as long as it is not whole.
pub(crate) const PARTIAL_SUFFIX: &str = ".partial";

const SEGMENT_SUFFIX: &str = ".log";
const OFFSET_DIGITS: usize = 20;

/// The directory of a partition.
pub(crate) fn partition_dir(partition: &TopicPartition) -> String {
    format!("{}-{}", partition.topic, partition.partition)
}

/// The partition a directory is for, if it is for one. A topic's name may have a `-` of its own.
pub(crate) fn partition_of_dir(name: &str) -> Option<TopicPartition> {
    let (topic, number) = name.rsplit_once('-')?;
    let partition: u32 = number.parse().ok()?;
    let found = TopicPartition { topic: TopicName::new(topic).ok()?, partition };
    // Neither `t-01` nor `t-+1` is a name that anybody gives.
    (partition_dir(&found) == name).then_some(found)
}

/// The file that begins at an offset.
pub(crate) fn segment_file(first: Offset) -> String {
    format!("{:0width$}{SEGMENT_SUFFIX}", first.0, width = OFFSET_DIGITS)
}

/// The offset a file begins at, if it is one of batches.
pub(crate) fn segment_offset(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let all_digits = digits.len() == OFFSET_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Offset)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_told_from_others() {
        let partition = partition_of_dir("a-b.c-12").unwrap();
        assert_eq!((partition.topic.as_str(), partition.partition), ("a-b.c", 12));
        assert_eq!(partition_dir(&partition), "a-b.c-12");
        for other in ["t", "t-", "-1", "t-01", "t-+1", "t-x", "t-4294967296", "a b-1", "t-0.delete"] {
            assert_eq!(partition_of_dir(other), None, "{other}");
        }
    }

    #[test]
    fn files_are_told_from_others() {
        assert_eq!(segment_file(Offset(42)), "00000000000000000042.log");
        assert_eq!(segment_offset("00000000000000000042.log"), Some(Offset(42)));
        assert_eq!(segment_offset(&segment_file(Offset::MAX)), Some(Offset::MAX));
        for other in
            ["42.log", "00000000000000000042.index", "00000000000000000042.log.partial", "+0000000000000000042.log"]
        {
            assert_eq!(segment_offset(other), None, "{other}");
        }
    }
}
