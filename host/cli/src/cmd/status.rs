//! `weir status`: how the broker is.

use super::Context;
use crate::{exit::Exit, human, view};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir status
  weir status --json")]
pub(crate) struct Args {}

pub(crate) async fn run(_: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let status = client.admin().status().await?;
    context.out.item(&view::status(&status), |_| {
        let writes = status.read_only.as_ref().map_or_else(|| "taken".to_owned(), |why| format!("refused: {why}"));
        format!(
            "broker       {}\nstore        {}\nup for       {}\nwrites       {writes}\ndisk         {} in {}\n\
             commits      {}\ntopics       {} with {}\nconnections  {}",
            status.broker,
            status.store_id,
            human::uptime(status.uptime_ms),
            human::bytes(status.disk_bytes),
            human::counted(status.segments, "segment"),
            human::count(status.commit_sequence),
            human::count(status.topics),
            human::counted(status.partitions, "partition"),
            human::count(status.connections),
        )
    })?;
    client.close().await;
    Ok(Exit::Done)
}
