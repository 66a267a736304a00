//! `weir status`: how the broker is.

use protocol::Health;

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
        format!(
            "broker       {}\nstore        {}\nup for       {}\nhealth       {}\n\
             disk         {} of {} in {}; {} available\n\
             commits      {}\ntopics       {} with {}\nconnections  {}",
            status.broker,
            status.store_id,
            human::uptime(status.uptime_ms),
            health(&status.health),
            human::bytes(status.disk_bytes),
            human::bytes(status.budget_bytes),
            human::counted(status.segments, "segment"),
            human::bytes(status.available_bytes),
            human::count(status.commit_sequence),
            human::count(status.topics),
            human::counted(status.partitions, "partition"),
            human::count(status.connections),
        )
    })?;
    client.close().await;
    Ok(Exit::Done)
}

fn health(health: &Health) -> String {
    let (state, why) = match health {
        Health::Healthy => return "healthy".to_owned(),
        Health::Slowed { why } => ("slowed", why),
        Health::Full { why } => ("full, records are refused", why),
        Health::ReadOnly { why } => ("read-only, every write is refused", why),
    };
    format!("{state}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_but_the_healthy_one_says_why() {
        let why = || "`storage.budget` of 1 GiB is used up".to_owned();
        assert_eq!(health(&Health::Healthy), "healthy");
        for (state, word) in [
            (Health::Slowed { why: why() }, "slowed"),
            (Health::Full { why: why() }, "full"),
            (Health::ReadOnly { why: why() }, "read-only"),
        ] {
            let text = health(&state);
            assert!(text.starts_with(word) && text.ends_with(&why()), "{text}");
        }
    }
}
