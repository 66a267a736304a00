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
             checked      {}\n\
             commits      {}\ntopics       {} with {}\nconnections  {}",
            status.broker,
            status.store_id,
            human::uptime(status.uptime_ms),
            health(&status.health),
            human::bytes(status.disk_bytes),
            human::bytes(status.budget_bytes),
            human::counted(status.segments, "segment"),
            human::bytes(status.available_bytes),
            checked(status.scrubbed_bytes, status.damages),
            human::count(status.commit_sequence),
            human::count(status.topics),
            human::counted(status.partitions, "partition"),
            human::count(status.connections),
        )
    })?;
    client.close().await;
    Ok(Exit::Done)
}

/// What the background check of older data came to.
fn checked(scrubbed_bytes: u64, damages: u64) -> String {
    let read = format!("{} of older data since the start", human::bytes(scrubbed_bytes));
    match damages {
        0 => format!("{read}, nothing is damaged"),
        damages => {
            let places = human::counted(damages, "damaged place");
            format!("{read}, {places}: stop the broker and see `weir verify`")
        }
    }
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
    fn damage_comes_with_what_to_do() {
        assert_eq!(checked(3 << 20, 0), "3 MiB of older data since the start, nothing is damaged");
        assert!(checked(3 << 20, 2).ends_with("2 damaged places: stop the broker and see `weir verify`"));
    }

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
