//! `weir verify`: every byte of a data directory, checked. Needs no broker, and changes nothing.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use protocol::{PartitionId, TopicPartition};
use serde_json::json;
use storage::{Damage, OpenError, StoreOptions, VerifyProgress, VerifyReport};

use super::Context;
use crate::{
    clock::Stopwatch,
    exit::{Exit, Failure},
    human,
    prober::ChildProber,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir verify
  weir verify /var/lib/weir --json      # one line for each finding, then a summary

Reads index files, record batches, commit records, redb's own pages and the state; writes nothing. The broker must be
stopped: a running one checks its sealed segments by itself (`weir status` shows it). Ends with 9 when anything is not
as it was written. `weir salvage DIR --to NEW` saves what is sound.")]
pub(crate) struct Args {
    /// The data directory [default: that of `--data-dir`]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let watch = Stopwatch::start();
    let dir = args.dir.clone().unwrap_or_else(|| context.common.data_dir());
    let bar = progress_bar(context, "checked");
    let verified = storage::verify(&dir, &looking(), &mut |at: VerifyProgress| {
        bar.set_length(at.bytes_total);
        bar.set_position(at.bytes_done);
        if at.damages > 0 {
            bar.set_message(format!(", {}", human::counted(at.damages, "finding")));
        }
    });
    bar.finish_and_clear();
    let report = verified.map_err(|error| refused(&dir, error))?;
    let names = broker::partition_names(&report.catalog);
    for damage in &report.damages {
        context.out.item(&damage_view(damage, &names), |_| text_of(damage, &names))?;
    }
    let damages = report.damages.len() as u64 + report.damages_beyond;
    context.out.item(&summary(&report, &watch), |_| {
        let read = format!(
            "{} in {}: {}, {} checked in {}",
            human::bytes(report.bytes),
            human::counted(report.segments as u64, "segment"),
            human::counted(report.commits, "commit"),
            human::counted(report.record_batches, "record batch"),
            human::elapsed(watch.elapsed()),
        );
        match damages {
            0 => format!("{read}; nothing is damaged"),
            _ => format!("{read}; {}", human::counted(damages, "finding")),
        }
    })?;
    Ok(if damages == 0 { Exit::Done } else { Exit::Damaged })
}

/// How a store is looked at from the command line: what may be damaged, in a process of its own.
pub(super) fn looking() -> StoreOptions {
    StoreOptions { prober: Arc::new(ChildProber), ..StoreOptions::default() }
}

/// Why a directory cannot be looked at.
pub(super) fn refused(dir: &std::path::Path, error: OpenError) -> Failure {
    let advice = match &error {
        OpenError::InUse { .. } => "stop the broker first, or restore a backup of it and take that",
        OpenError::NewerFormat { .. } => "use the `weir` that wrote it, or a newer one",
        _ => "give a directory that `weir serve --data-dir` ran on",
    };
    Failure::new(Exit::Refused, format!("`{}` cannot be read as a data directory", dir.display()), advice)
        .because(error)
}

/// A bar of bytes, where a person waits.
pub(super) fn progress_bar(context: &Context, done: &str) -> ProgressBar {
    if context.out.is_json() || !context.out.talks_to_a_person() {
        return ProgressBar::hidden();
    }
    let template = format!("  {{wide_bar}} {{bytes}} of {{total_bytes}} {done}{{msg}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is nearly a constant");
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A partition as people know it, or by its id where no topic that can be read has it.
pub(super) fn partition_name(id: PartitionId, names: &BTreeMap<PartitionId, TopicPartition>) -> String {
    names.get(&id).map_or_else(|| format!("partition with id {id}"), |name| format!("`{name}`"))
}

fn text_of(damage: &Damage, names: &BTreeMap<PartitionId, TopicPartition>) -> String {
    let Damage { file, what, partition, offsets } = damage;
    let Some(partition) = partition else { return format!("{file}: {what}") };
    let offsets = offsets.as_ref().map_or_else(String::new, |offsets| {
        format!(", offsets {} to {}", offsets.start, offsets.end.0.saturating_sub(1))
    });
    format!("{file}: {what}: {}{offsets}", partition_name(*partition, names))
}

fn damage_view(damage: &Damage, names: &BTreeMap<PartitionId, TopicPartition>) -> serde_json::Value {
    let name = damage.partition.and_then(|id| names.get(&id));
    json!({
        "damage": damage.what,
        "file": damage.file,
        "topic": name.map(|name| name.topic.to_string()),
        "partition": name.map(|name| name.partition),
        "partition_id": damage.partition.map(|id| id.0),
        "first_offset": damage.offsets.as_ref().map(|offsets| offsets.start.0),
        "next_offset": damage.offsets.as_ref().map(|offsets| offsets.end.0),
    })
}

fn summary(report: &VerifyReport, watch: &Stopwatch) -> serde_json::Value {
    json!({
        "damages": report.damages.len() as u64 + report.damages_beyond,
        "segments": report.segments,
        "commits": report.commits,
        "record_batches": report.record_batches,
        "bytes": report.bytes,
        "elapsed_ms": watch.elapsed().as_millis() as u64,
    })
}
