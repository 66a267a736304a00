//! `weir backup`: the running broker copies itself into a directory of its host.

use std::{num::NonZeroU32, path::PathBuf};

use client::{BackupDone, RestorableRun, StartBackup};
use serde_json::{Value, json};

use super::{Context, verify::progress_bar};
use crate::{
    exit::{Exit, Failure},
    human,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir backup --to /mnt/disk2/weir-backup
  weir backup --to /mnt/disk2/weir-backup --keep 7    # every night: only what is new is copied
  weir restore /mnt/disk2/weir-backup --to ./weir-data-2

DIR is a path on the broker's host, and the broker writes it. Records are taken and read as ever meanwhile. On the file
system of the data directory files are linked, which costs no space, but does not outlive the disk; on another one they
are copied. The same DIR again brings only what is new, and keeps what was there: `weir restore` can go to every commit
since the oldest snapshot in it. The broker's identity stays out of it unless `--with-identity` is given.")]
pub(crate) struct Args {
    /// The backup's directory, on the broker's host: a new one, or that of an earlier backup
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How many snapshots stay there; older ones go, with the records only they need [default: all]
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroU32>,
    /// Copy the broker's identity as well: whoever reads it can let anybody in
    #[arg(long)]
    with_identity: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> anyhow::Result<Exit> {
    let to = std::path::absolute(&args.to)?;
    let Some(to) = to.to_str().map(str::to_owned) else {
        let text = format!("`{}` is not text, so that it cannot be told to the broker", to.display());
        return Err(Failure::new(Exit::Usage, text, "give a path that is UTF-8").into());
    };
    let client = context.common.connect().await?;
    let bar = progress_bar(context, "copied");
    let start = StartBackup { to: to.clone(), keep: args.keep.map(NonZeroU32::get), with_identity: args.with_identity };
    let admin = client.admin();
    let done = admin.backup(start, |status| {
        bar.set_length(status.bytes_total);
        bar.set_position(status.bytes_done);
    });
    let done = done.await;
    bar.finish_and_clear();
    let done = done?;
    context.out.item(&view(&to, &done), |_| text(&to, &done))?;
    client.close().await;
    Ok(Exit::Done)
}

fn view(to: &str, done: &BackupDone) -> Value {
    let restorable: Vec<Value> = done.restorable.iter().map(run_view).collect();
    json!({
        "to": to,
        "snapshot_sequence": done.snapshot_sequence,
        "last_sequence": done.last_sequence,
        "segments_added": done.segments_added,
        "segments_kept": done.segments_kept,
        "bytes_added": done.bytes_added,
        "linked": done.linked,
        "files_removed": done.files_removed,
        "restorable": restorable,
    })
}

fn run_view(run: &RestorableRun) -> Value {
    json!({
        "commit_min": run.commit_min,
        "commit_max": run.commit_max,
        "time_min_ms": run.time_min_ms,
        "time_max_ms": run.time_max_ms,
    })
}

fn text(to: &str, done: &BackupDone) -> String {
    let how = if done.linked { "linked" } else { "copied" };
    let mut text = format!(
        "backed up to {to} on the broker's host: {} {how} ({}), {} there already",
        human::counted(done.segments_added, "segment"),
        human::bytes(done.bytes_added),
        human::count(done.segments_kept),
    );
    for run in &done.restorable {
        text.push_str(&format!(
            "\n`weir restore` can go to commits {} to {}, from {} to {}",
            run.commit_min,
            run.commit_max,
            human::time(run.time_min_ms),
            human::time(run.time_max_ms),
        ));
    }
    text
}
