//! `weir restore`: a new data directory out of a backup. Needs no broker.

use std::path::PathBuf;

use serde_json::{Value, json};
use server::{RestoreError, RestorePoint, RestoredServer};

use super::{
    Context,
    verify::{looking, progress_bar},
};
use crate::{
    exit::{Exit, Failure},
    human,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir restore /mnt/disk2/weir-backup --to ./weir-data-2
  weir restore /mnt/disk2/weir-backup --to ./weir-data-2 --time 2026-03-01T12:00:00Z
  weir restore /mnt/disk2/weir-backup --to ./weir-data-2 --commit 4711
  weir serve --data-dir ./weir-data-2

Every file of the backup that is used is checked. The new directory is a broker's like any other, and has the store id of
the old one: run one of them, and never mix their files. Where the backup has no identity, the broker makes itself a new
one, and clients need an identity file of that one. Ends with 9 when the backup is damaged.")]
pub(crate) struct Args {
    /// The backup
    backup: PathBuf,
    /// The new data directory: one that is not there yet, or is empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Restore to this commit, and none after it [default: the last in the backup]
    #[arg(long, value_name = "N", conflicts_with = "time")]
    commit: Option<u64>,
    /// Restore to the last commit made at or before this time
    #[arg(long, value_name = "TIME", value_parser = human::parse_time_ms)]
    time: Option<i64>,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let point = match (args.commit, args.time) {
        (Some(commit), _) => RestorePoint::Commit(commit),
        (None, Some(ms)) => RestorePoint::Time(ms),
        (None, None) => RestorePoint::Latest,
    };
    let bar = progress_bar(context, "restored");
    let restored = server::restore(&args.backup, &args.to, point, looking(), &mut |at| {
        bar.set_length(at.bytes_total);
        bar.set_position(at.bytes_done);
        true
    });
    bar.finish_and_clear();
    let restored = restored.map_err(|error| failure(args, error))?;
    let to = args.to.display().to_string();
    context.out.item(&view(&to, &restored), |_| text(&to, &restored))?;
    Ok(Exit::Done)
}

fn failure(args: &Args, error: RestoreError) -> Failure {
    let (exit, advice) = match &error {
        RestoreError::Damaged { .. } => (Exit::Damaged, "restore to a commit before it, or from another backup"),
        RestoreError::OutOfReach { .. } => (Exit::Refused, "`--commit` or `--time` within what is possible"),
        RestoreError::NotABackup { .. } => (Exit::Refused, "give the directory that `weir backup --to` made"),
        RestoreError::NotEmpty { .. } | RestoreError::Unfinished { .. } => {
            (Exit::Refused, "`--to` a directory that is not there yet")
        }
        RestoreError::NewerFormat { .. } => (Exit::Refused, "use the `weir` that made it, or a newer one"),
        RestoreError::Open { .. } => (Exit::Failed, "`weir verify` on what was restored says what is wrong with it"),
        RestoreError::Io { .. } => (Exit::Failed, "see that the disk has room, and that both directories can be used"),
    };
    Failure::new(exit, format!("`{}` was not restored", args.backup.display()), advice).because(error)
}

fn view(to: &str, restored: &RestoredServer) -> Value {
    let RestoredServer { store, with_identity } = restored;
    json!({
        "to": to,
        "store_id": store.store.to_string(),
        "commit": store.commit,
        "snapshot_sequence": store.snapshot_sequence,
        "segments": store.segments_whole + usize::from(store.cut),
        "linked": store.linked,
        "with_identity": with_identity,
    })
}

fn text(to: &str, restored: &RestoredServer) -> String {
    let RestoredServer { store, with_identity } = restored;
    let segments = (store.segments_whole + usize::from(store.cut)) as u64;
    let how = if store.linked { "linked" } else { "copied" };
    let identity = if *with_identity { "with the broker's identity" } else { "without the broker's identity" };
    format!(
        "restored commit {} to {to}: {} {how}, {identity}\n`weir serve --data-dir {to}` runs it",
        store.commit,
        human::counted(segments, "segment"),
    )
}
