//! `weir demo`: all of it in one command, on generated web events or on a real access log.
//!
//! ```text
//! setup    a broker in this process, topics, plugins, a pipeline         setup.rs, plan.rs
//! flow     records in over QUIC, what is left of them out again          flow.rs, reading.rs, source.rs, events.rs
//! report   costs, one record followed, dead letters, the books           report.rs, diff.rs
//! ```
//! Everything that is shown was measured or read back; the books must balance, or the command fails.

mod diff;
mod events;
mod flow;
mod plan;
mod reading;
mod report;
mod screen;
mod setup;
mod source;

use std::path::PathBuf;

use self::{plan::Plan, screen::Screen, setup::Setup, source::Origin};
use super::{Context, serve::Signals};
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir demo
  weir demo --records 2000000 --seed 7
  weir demo --file access.log                 # your own log, Apache or nginx, combined format
  weir demo --data-dir ./weir-demo            # keeps the data, to go on by hand
  weir demo --records 20000 --json | tail -n 1

Ends with 0 when the books balance: in = kept + dropped + dead-lettered + rejected.")]
pub(crate) struct Args {
    /// How many events to generate
    #[arg(long, value_name = "N", default_value_t = 1_000_000, conflicts_with = "file")]
    records: u64,
    /// What the events are made of: the same seed gives the same events
    #[arg(long, value_name = "S", default_value_t = 1, conflicts_with = "file")]
    seed: u64,
    /// Send the lines of this access log instead
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = Box::pin(run_to_end(args, context)) => done,
        // What was begun is dropped, and a temporary directory with it.
        () = signals.next() => Err(Failure::new(Exit::Failed, "the demo was interrupted", "").into()),
    }
}

async fn run_to_end(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let (origin, plan) = match &args.file {
        Some(file) => (Origin::File(file.clone()), Plan::access_log()),
        None => (Origin::Seed { seed: args.seed, records: args.records }, Plan::events()),
    };
    // Before anything is started: a file that is not there is said at once.
    let total = origin.count()?;
    let kept_in = context.common.data_dir.clone();
    let mut screen = Screen::new(&mut context.out);
    let setup = Setup::start(kept_in, &plan, &mut screen).await?;
    let shown = show(&setup, &plan, &origin, total, &mut screen).await;
    setup.stop().await;
    let faults = shown?;
    if faults.is_empty() {
        return Ok(Exit::Done);
    }
    let text = format!("the books do not balance: {}", faults.join("; "));
    Err(Failure::new(Exit::Failed, text, "this is a fault of weir; report it with this output").into())
}

/// The show itself; says what is wrong with the books: nothing, as a rule.
async fn show(
    setup: &Setup,
    plan: &Plan,
    origin: &Origin,
    total: u64,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Vec<String>> {
    screen.heading("What flows")?;
    let flowed = flow::run(setup.client(), plan, origin, total, screen).await?;
    let transforms = setup.client().admin().transforms(Some(&plan.topic)).await?;
    let report = report::Report { setup, plan, origin, flowed: &flowed, transforms: &transforms };
    report.tell(screen)
}
