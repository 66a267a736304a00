//! Files that are either whole, synced and named, or look like nothing else.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use protocol::{Offset, TopicName, TopicPartition};

use super::layout::{PARTIAL_SUFFIX, partition_dir, partition_of_dir, segment_file, segment_offset};
use crate::exit::{Exit, Failure};

const BUFFER_BYTES: usize = 1 << 20;

/// A directory that a topic's partitions are written to.
#[derive(Debug)]
pub(crate) struct Target {
    dir: PathBuf,
    topic: TopicName,
    /// Files of the topic that are replaced.
    old: Vec<PathBuf>,
}

/// A file that is being written. It vanishes unless it is [published](Target::publish).
#[derive(Debug)]
pub(crate) struct NewFile {
    name: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    published: bool,
}

impl Target {
    /// Makes the directory, if it is missing, and sees that nothing in it is in the way. `only` are the partitions
    /// that are meant; none means all, also those that the topic had once. With `force`, files that an export left there
    /// are replaced.
    ///
    /// # Errors
    /// When the directory cannot be used, or holds files of the topic.
    pub(crate) fn prepare(dir: &Path, topic: &TopicName, only: &[u32], force: bool) -> Result<Target, Failure> {
        fs::create_dir_all(dir).map_err(|error| failed("make the directory", dir, error))?;
        let mut target = Target { dir: dir.to_owned(), topic: topic.clone(), old: Vec::new() };
        for path in paths(dir)? {
            let Some(place) = file_name(&path).and_then(partition_of_dir) else { continue };
            if place.topic == *topic && (only.is_empty() || only.contains(&place.partition)) {
                target.look_into(&path, force)?;
            }
        }
        for partial in target.old.extract_if(.., |path| is_partial(path)) {
            fs::remove_file(&partial).map_err(|error| failed("remove", &partial, error))?;
        }
        Ok(target)
    }

    fn look_into(&mut self, partition: &Path, force: bool) -> Result<(), Failure> {
        for path in paths(partition)? {
            let name = file_name(&path).unwrap_or_default();
            let whole = name.strip_suffix(PARTIAL_SUFFIX).unwrap_or(name);
            if segment_offset(whole).is_none() {
                // A broker of Kafka has indexes beside its segments. Its data must not fall to a `--force`.
                let text = format!("`{}` is no file that an export wrote", path.display());
                return Err(Failure::new(Exit::Refused, text, "export to another directory"));
            }
            if !force {
                let what =
                    if is_partial(&path) { "of an export that is under way or was interrupted" } else { "already" };
                let text = format!("`{}` holds files of topic `{}` {what}", self.dir.display(), self.topic);
                return Err(Failure::new(
                    Exit::Refused,
                    text,
                    "export to another directory, or replace them: `--force`",
                ));
            }
            self.old.push(path);
        }
        Ok(())
    }

    /// A new file for a partition's batches from an offset on.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn file(&self, partition: u32, first: Offset) -> Result<NewFile, Failure> {
        let place = TopicPartition { topic: self.topic.clone(), partition };
        let dir = self.dir.join(partition_dir(&place));
        fs::create_dir_all(&dir).map_err(|error| failed("make the directory", &dir, error))?;
        NewFile::create(dir.join(segment_file(first)))
    }

    /// Gives the files their names, in place of those that were there. Nothing looks complete before all are synced.
    ///
    /// # Errors
    /// When the disk refuses; then some files may have their names.
    pub(crate) fn publish(self, mut files: Vec<NewFile>) -> Result<(), Failure> {
        for file in &mut files {
            file.sync()?;
        }
        // First the old, then the new: cut short in between, what is left is seen to be partial.
        for old in &self.old {
            fs::remove_file(old).map_err(|error| failed("remove", old, error))?;
        }
        let mut dirs: BTreeSet<&Path> = self.old.iter().filter_map(|path| path.parent()).collect();
        for file in &mut files {
            file.rename()?;
        }
        dirs.extend(files.iter().filter_map(|file| file.name.parent()));
        dirs.extend([&*self.dir].into_iter().chain(self.dir.parent()));
        dirs.into_iter().try_for_each(|dir| sync_dir(dir).map_err(|error| failed("sync the directory", dir, error)))
    }
}

impl NewFile {
    fn create(name: PathBuf) -> Result<NewFile, Failure> {
        let mut partial = name.clone().into_os_string();
        partial.push(PARTIAL_SUFFIX);
        let partial = PathBuf::from(partial);
        match File::create_new(&partial) {
            Ok(file) => {
                let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                Ok(NewFile { name, partial, file, published: false })
            }
            Err(error) => Err(failed("make", &partial, error)),
        }
    }

    /// The name it will have.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| failed("write", &self.partial, error))
    }

    fn sync(&mut self) -> Result<(), Failure> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| failed("sync", &self.partial, error))
    }

    fn rename(&mut self) -> Result<(), Failure> {
        fs::rename(&self.partial, &self.name).map_err(|error| failed("rename", &self.partial, error))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: what stays is seen to be partial.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn paths(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    entries.map_err(|error| failed("list", dir, error))
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str())
}

fn is_partial(path: &Path) -> bool {
    file_name(path).is_some_and(|name| name.ends_with(PARTIAL_SUFFIX))
}

fn failed(what: &str, path: &Path, error: io::Error) -> Failure {
    let text = format!("cannot {what} `{}`", path.display());
    Failure::new(Exit::Failed, text, "see that the directory can be written to, and that the disk has room")
        .because(error)
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// Directories cannot be opened there; names are durable with the files.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn topic() -> TopicName {
        "t".parse().unwrap()
    }

    fn prepare(dir: &TempDir, only: &[u32], force: bool) -> Result<Target, Failure> {
        Target::prepare(&dir.path().join("out"), &topic(), only, force)
    }

    fn names(dir: &TempDir) -> Vec<String> {
        let mut names = Vec::new();
        for partition in paths(&dir.path().join("out")).unwrap() {
            for file in paths(&partition).unwrap() {
                names.push(file.strip_prefix(dir.path().join("out")).unwrap().to_str().unwrap().to_owned());
            }
        }
        names.sort();
        names
    }

    /// Exports these partitions, each from an offset on.
    fn publish(dir: &TempDir, only: &[u32], force: bool, partitions: &[(u32, u64)]) {
        let target = prepare(dir, only, force).unwrap();
        let file = |&(partition, first)| {
            let mut file = target.file(partition, Offset(first)).unwrap();
            file.write(b"batches").unwrap();
            file
        };
        let files = partitions.iter().map(file).collect();
        target.publish(files).unwrap();
    }

    #[test]
    fn a_file_has_its_name_once_all_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = prepare(&dir, &[], false).unwrap();
        let mut first = target.file(0, Offset(7)).unwrap();
        first.write(b"batch").unwrap();
        assert_eq!(names(&dir), ["t-0/00000000000000000007.log.partial"]);
        let second = target.file(1, Offset(0)).unwrap();
        target.publish(vec![first, second]).unwrap();
        assert_eq!(names(&dir), ["t-0/00000000000000000007.log", "t-1/00000000000000000000.log"]);
        assert_eq!(fs::read(dir.path().join("out/t-0/00000000000000000007.log")).unwrap(), b"batch");
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = prepare(&dir, &[], false).unwrap().file(0, Offset(0)).unwrap();
        drop(file);
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test]
    fn files_of_the_topic_are_in_the_way_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        publish(&dir, &[], false, &[(0, 0), (1, 0)]);
        assert_eq!(prepare(&dir, &[], false).unwrap_err().exit, Exit::Refused);
        assert_eq!(prepare(&dir, &[1], false).unwrap_err().exit, Exit::Refused);
        publish(&dir, &[2], false, &[(2, 5)]);
        // Partition 2 is not exported again, and what is there must not be taken for its present state.
        publish(&dir, &[], true, &[(0, 0), (1, 3)]);
        assert_eq!(names(&dir), ["t-0/00000000000000000000.log", "t-1/00000000000000000003.log"]);
    }

    #[test]
    fn an_interrupted_export_is_in_the_way_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = prepare(&dir, &[], false).unwrap().file(0, Offset(0)).unwrap();
        file.published = true; // as if the process had been killed
        drop(file);
        assert!(prepare(&dir, &[], false).unwrap_err().text.contains("interrupted"));
        publish(&dir, &[], true, &[(0, 0)]);
        assert_eq!(names(&dir), ["t-0/00000000000000000000.log"]);
    }

    #[test]
    fn what_no_export_wrote_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        publish(&dir, &[], false, &[(0, 0)]);
        fs::write(dir.path().join("out/t-0/00000000000000000000.index"), "Kafka's").unwrap();
        assert_eq!(prepare(&dir, &[], true).unwrap_err().exit, Exit::Refused);
        assert_eq!(names(&dir).len(), 2);
    }
}
