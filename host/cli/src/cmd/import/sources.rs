//! Which files are read, in which order, and for which partition.
//!
//! Owns the rule what a path stands for. Never opens a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use client::{TopicName, TopicPartition};

use super::{Args, PartitionMap};
use crate::{
    batch_file::{PARTIAL_SUFFIX, partition_of_dir, segment_offset},
    exit::{Exit, Failure},
};

/// What is read for one partition, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) partition: u32,
    pub(super) inputs: Vec<Input>,
}

/// Something that holds batches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

impl Source {
    /// Bytes of its files; `None` where nobody can know.
    pub(super) fn bytes(&self) -> Option<u64> {
        let bytes = |input: &Input| match input {
            Input::Stdin => None,
            Input::File(path) => Some(fs::metadata(path).map_or(0, |metadata| metadata.len())),
        };
        self.inputs.iter().map(bytes).sum()
    }
}

/// Looks up what the path stands for.
pub(super) fn find(args: &Args) -> Result<Vec<Source>, Failure> {
    if args.partition.is_some() && args.partition_map == PartitionMap::Key {
        let text = "`--partition` and `--partition-map key` contradict each other";
        return Err(Failure::new(Exit::Usage, text, "leave one of them out"));
    }
    let alone = |input| vec![Source { partition: args.partition.unwrap_or(0), inputs: vec![input] }];
    if args.path == Path::new("-") {
        return Ok(alone(Input::Stdin));
    }
    let metadata = fs::metadata(&args.path).map_err(|error| unreadable(&args.path, error))?;
    if !metadata.is_dir() {
        return Ok(alone(Input::File(args.path.clone())));
    }
    let partitions = partitions(&args.path)?;
    if partitions.is_empty() {
        return Ok(vec![one_partition(args)?]);
    }
    if args.partition.is_some() {
        let text = format!("`--partition` is for one file, and `{}` holds partitions", args.path.display());
        return Err(Failure::new(Exit::Usage, text, "give the directory or file of one partition, or leave it out"));
    }
    let topic = choose(args, partitions.keys().map(|place| &place.topic).collect())?;
    let of_topic = partitions.into_iter().filter(|(place, _)| place.topic == topic);
    of_topic.map(|(place, dir)| Ok(Source { partition: place.partition, inputs: segments(&dir)? })).collect()
}

/// The path is the directory of a partition itself.
fn one_partition(args: &Args) -> Result<Source, Failure> {
    let path = &args.path;
    let inputs = segments(path)?;
    // `.` and the like have no name of their own.
    let named = path.canonicalize().unwrap_or_else(|_| path.clone());
    let place = named.file_name().and_then(|name| name.to_str()).and_then(partition_of_dir);
    if inputs.is_empty() && place.is_none() {
        let text = format!("`{}` holds no directory such as `{}-0` and no file of batches", path.display(), args.topic);
        let advice = "give what `weir export --to` wrote, or a data directory of Kafka's";
        return Err(Failure::new(Exit::Refused, text, advice));
    }
    let partition = args.partition.or_else(|| Some(place?.partition)).unwrap_or(0);
    Ok(Source { partition, inputs })
}

/// The topic that is meant, of those that are there.
fn choose(args: &Args, there: BTreeSet<&TopicName>) -> Result<TopicName, Failure> {
    let wanted = args.source_topic.as_ref().unwrap_or(&args.topic);
    if there.contains(wanted) {
        return Ok(wanted.clone());
    }
    let list: Vec<String> = there.iter().map(|topic| format!("`{topic}`")).collect();
    match there.first() {
        Some(only) if there.len() == 1 && args.source_topic.is_none() => Ok((*only).clone()),
        _ => {
            let text = format!("`{}` holds no topic `{wanted}` but {}", args.path.display(), list.join(", "));
            Err(Failure::new(Exit::NotFound, text, "choose one: `--source-topic NAME`"))
        }
    }
}

/// The directories of partitions, by topic and number.
fn partitions(dir: &Path) -> Result<BTreeMap<TopicPartition, PathBuf>, Failure> {
    let place = |(name, path): (String, PathBuf)| Some((partition_of_dir(&name)?, path));
    Ok(list(dir)?.into_iter().filter(|(_, path)| path.is_dir()).filter_map(place).collect())
}

/// The files of a partition, by the offset they begin at.
fn segments(dir: &Path) -> Result<Vec<Input>, Failure> {
    let files = list(dir)?;
    if let Some((_, partial)) = files.iter().find(|(name, _)| name.ends_with(PARTIAL_SUFFIX)) {
        let text = format!("`{}` is of an export that is under way or was interrupted", partial.display());
        let advice = "export again, with `--force`; or delete that file to import what is there besides";
        return Err(Failure::new(Exit::Refused, text, advice));
    }
    let by_offset: BTreeMap<_, _> =
        files.into_iter().filter_map(|(name, path)| Some((segment_offset(&name)?, path))).collect();
    Ok(by_offset.into_values().map(Input::File).collect())
}

/// Names and paths of what is in a directory; what is not called in UTF-8 is none of ours.
fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| unreadable(dir, error))?;
    Ok(entries.into_iter().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect())
}

/// A path that cannot be read.
pub(super) fn unreadable(path: &Path, error: io::Error) -> Failure {
    let text = format!("cannot read `{}`", path.display());
    Failure::new(Exit::Refused, text, "give what `weir export` wrote: a directory, or a file").because(error)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const ONE: &str = "00000000000000000001.log";
    const TEN: &str = "00000000000000000010.log";

    fn place(files: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn args(path: impl Into<PathBuf>) -> Args {
        Args {
            topic: "t".parse().unwrap(),
            path: path.into(),
            partition_map: PartitionMap::Keep,
            partition: None,
            create: false,
            source_topic: None,
            with_transactions: false,
        }
    }

    /// Partition numbers, each with the names of its files.
    fn found(args: &Args) -> Vec<(u32, Vec<String>)> {
        let name = |input: &Input| match input {
            Input::Stdin => "-".to_owned(),
            Input::File(path) => path.file_name().unwrap().to_str().unwrap().trim_start_matches('0').to_owned(),
        };
        let sources = find(args).unwrap().into_iter();
        sources.map(|source| (source.partition, source.inputs.iter().map(name).collect())).collect()
    }

    #[test]
    fn partitions_keep_their_numbers_and_files_their_order() {
        let dir = place(&[
            &format!("t-10/{TEN}"),
            &format!("t-2/{TEN}"),
            &format!("t-2/{ONE}"),
            "t-2/00000000000000000001.index",
            "t-2/leader-epoch-checkpoint",
            "meta.properties",
        ]);
        let expected = [(2, vec!["1.log".to_owned(), "10.log".to_owned()]), (10, vec!["10.log".to_owned()])];
        assert_eq!(found(&args(dir.path())), expected);
        // The directory of a partition, a file, stdin.
        let partition = dir.path().join("t-10");
        assert_eq!(found(&args(&partition)), expected[1..]);
        assert_eq!(found(&args(partition.join(TEN))), [(0, vec!["10.log".to_owned()])]);
        assert_eq!(found(&args("-")), [(0, vec!["-".to_owned()])]);
        assert_eq!(found(&Args { partition: Some(5), ..args(&partition) })[0].0, 5);
        assert_eq!(find(&Args { partition: Some(5), ..args(dir.path()) }).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn of_several_topics_the_named_one_is_read() {
        let dir = place(&[&format!("a-0/{ONE}"), &format!("a-1/{ONE}"), &format!("b-3/{ONE}")]);
        let failure = find(&args(dir.path())).unwrap_err();
        assert!(failure.text.contains("`a`, `b`") && failure.exit == Exit::NotFound, "{}", failure.text);
        let named = Args { source_topic: Some("b".parse().unwrap()), ..args(dir.path()) };
        assert_eq!(found(&named)[0].0, 3);
        let same = Args { topic: "a".parse().unwrap(), ..args(dir.path()) };
        assert_eq!(found(&same).len(), 2);
        let only = place(&[&format!("a-0/{ONE}"), &format!("a-1/{ONE}")]);
        assert_eq!(found(&args(only.path())).len(), 2, "the only one need not be named");
    }

    #[test]
    fn what_is_missing_or_not_whole_is_refused() {
        let dir = place(&["notes.txt", &format!("t-0/{ONE}"), &format!("t-1/{ONE}.partial")]);
        assert!(find(&args(dir.path())).unwrap_err().text.contains("interrupted"));
        assert_eq!(find(&args(dir.path().join("nowhere"))).unwrap_err().exit, Exit::Refused);
        let empty = tempfile::tempdir().unwrap();
        assert!(find(&args(empty.path())).unwrap_err().text.contains("`t-0`"));
    }
}
