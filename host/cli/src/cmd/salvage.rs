//! `weir salvage`: what is sound in a damaged data directory, in a new one. Needs no broker, and leaves the old one as it is.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{PartitionId, TopicPartition};
use serde_json::json;
use storage::{
    Budget, LostRange, SalvageError, SalvageOptions, SalvageProgress, SalvageReport, StateSource, StoreOptions,
};

use super::{
    Context,
    verify::{looking, partition_name, progress_bar, refused},
};
use crate::{
    clock::Stopwatch,
    exit::{Exit, Failure},
    human,
};

/// What lies beside the store in a data directory, and comes along as it is.
const BESIDE: [&str; 2] = ["plugins", "identity"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir salvage weir-data --to weir-saved
  weir salvage /var/lib/weir --to /mnt/weir --json     # one line for each range lost, then a summary

Then `weir verify weir-saved`, and `weir serve --data-dir weir-saved`.

Partitions, offsets, batches, groups and producers are as they were, byte for byte; plugins and identities are copied.
What cannot be had is listed, and left out: readers come past it. Ends with 9 when anything is lost.")]
pub(crate) struct Args {
    /// The damaged data directory; nothing is written to it
    dir: PathBuf,
    /// The new one: a directory that is empty, or not there yet
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let watch = Stopwatch::start();
    let Args { dir, to } = args;
    refuse_place(dir, to)?;
    let bar = progress_bar(context, "read");
    let options = SalvageOptions {
        // Everything is to fit that fits: there is nobody whose writes have to be slowed.
        store: StoreOptions { budget: Budget::SharePercent(100), reserve_bytes: 0, ..looking() },
        partitions_of: broker::partitions_of,
    };
    let saved = storage::salvage(dir, to, &options, &mut |at: SalvageProgress| {
        bar.set_length(at.bytes_total);
        bar.set_position(at.bytes_done);
        if at.lost > 0 {
            bar.set_message(format!(", {} lost", human::counted(at.lost, "range")));
        }
    });
    bar.finish_and_clear();
    let report = saved.map_err(|error| failed(dir, to, error))?;
    for name in BESIDE {
        copy_dir(&dir.join(name), &to.join(name)).map_err(|error| {
            let text = format!("`{}` cannot be copied", dir.join(name).display());
            Failure::new(Exit::Failed, text, "copy it by hand: all records are saved").because(error)
        })?;
    }
    tell(&report, to, &watch, context)?;
    let whole = report.lost.is_empty() && report.commits_lost == 0;
    Ok(if whole { Exit::Done } else { Exit::Damaged })
}

/// A new directory in the old one would be a change of it.
fn refuse_place(dir: &Path, to: &Path) -> Result<(), Failure> {
    let advice = "choose a directory beside it, or on another disk";
    let absolute = |path: &Path| {
        // The new one need not exist yet; those above it tell where it will be.
        let known = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        known.map_or_else(|| path.to_owned(), |(above, known)| known.join(path.strip_prefix(above).unwrap_or(path)))
    };
    let to_absolute = absolute(&std::path::absolute(to).unwrap_or_else(|_| to.to_owned()));
    if to_absolute.starts_with(absolute(&std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()))) {
        let text = format!("`{}` lies in `{}`, which stays as it is", to.display(), dir.display());
        return Err(Failure::new(Exit::Refused, text, advice));
    }
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(Exit::Refused, format!("`{}` is not empty", to.display()), advice));
    }
    Ok(())
}

fn failed(dir: &Path, to: &Path, error: SalvageError) -> Failure {
    match error {
        SalvageError::Open(error) => refused(dir, error),
        error => {
            let text = format!("`{}` could not be filled", to.display());
            let advice = "look for room on its disk, remove it, and salvage again";
            Failure::new(Exit::Failed, text, advice).because(error)
        }
    }
}

/// Copies a directory with everything in it, if it is there. Who may read a file stays as it is.
fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
            fs::File::open(&to)?.sync_all()?;
        }
    }
    Ok(())
}

fn tell(report: &SalvageReport, to: &Path, watch: &Stopwatch, context: &mut Context) -> anyhow::Result<()> {
    let names = broker::partition_names(&report.catalog);
    for lost in &report.lost {
        context.out.item(&lost_view(lost, &names), |_| lost_text(lost, &names))?;
    }
    let ranges = report.lost.len() as u64 + report.lost_beyond;
    let state = match report.state {
        StateSource::File => "file",
        StateSource::Log => "log",
        StateSource::Nothing => "nothing",
    };
    let summary = json!({
        "to": to.display().to_string(),
        "partitions": report.partitions,
        "bytes_saved": report.bytes_saved,
        "ranges_lost": ranges,
        "commits_lost": report.commits_lost,
        "state": state,
        "elapsed_ms": watch.elapsed().as_millis() as u64,
    });
    context.out.item(&summary, |_| {
        let mut text = format!(
            "{} of {} saved to `{}` in {}",
            human::bytes(report.bytes_saved),
            human::counted(report.partitions as u64, "partition"),
            to.display(),
            human::elapsed(watch.elapsed()),
        );
        text += &match ranges {
            0 => "; no records are lost".to_owned(),
            _ => format!("; {} of records lost", human::counted(ranges, "range")),
        };
        if report.commits_lost > 0 {
            let commits = human::counted(report.commits_lost, "commit");
            text += &format!("\n{commits} cannot be read: settings and group offsets may be older than they were");
        }
        match report.state {
            StateSource::File => {}
            StateSource::Log => text += "\nstate.redb cannot be used: the state is from the log",
            StateSource::Nothing => text += "\nthere is no state: no topics, and no groups",
        }
        text
    })
}

fn lost_text(lost: &LostRange, names: &BTreeMap<PartitionId, TopicPartition>) -> String {
    let LostRange { partition, offsets, bytes, file, cause } = lost;
    let bytes = bytes.map_or_else(String::new, |bytes| format!(", {}", human::bytes(bytes)));
    let last = offsets.end.0.saturating_sub(1);
    format!("lost: {}, offsets {} to {last}{bytes}: {cause} ({file})", partition_name(*partition, names), offsets.start)
}

fn lost_view(lost: &LostRange, names: &BTreeMap<PartitionId, TopicPartition>) -> serde_json::Value {
    let name = names.get(&lost.partition);
    json!({
        "lost": lost.cause,
        "file": lost.file,
        "topic": name.map(|name| name.topic.to_string()),
        "partition": name.map(|name| name.partition),
        "partition_id": lost.partition.0,
        "first_offset": lost.offsets.start.0,
        "next_offset": lost.offsets.end.0,
        "bytes": lost.bytes,
    })
}
