//! `weir topic`: named logs, made, seen, changed and deleted.

use clap::{Args, Subcommand};
use protocol::{
    CleanupPolicy, Retention, TopicConfig, TopicDescription, TopicName,
    control::{AlterTopic, CreateTopic},
};

use super::Context;
use crate::{
    exit::{Exit, Failure},
    human,
    view::TopicView,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a topic; one that exists alike is fine
    #[command(after_help = "Examples:
  weir topic create clicks
  weir topic create orders --partitions 8 --retention-age 30d --retention-bytes 10GiB
  weir topic create prices --cleanup-policy compact")]
    Create(CreateArgs),
    /// List topics
    #[command(after_help = "Examples:
  weir topic list
  weir topic list --json | jq -r .topic")]
    List,
    /// Show a topic's settings and partitions
    #[command(after_help = "Example:
  weir topic describe clicks")]
    Describe(NameArgs),
    /// Change a topic's settings
    #[command(after_help = "Examples:
  weir topic alter clicks --retention-age 24h
  weir topic alter clicks --partitions 16
  weir topic alter prices --cleanup-policy compact,delete --delete-retention 2d")]
    Alter(AlterArgs),
    /// Delete a topic and its records
    #[command(after_help = "Example:
  weir topic delete clicks")]
    Delete(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The topic
    name: TopicName,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: letters, digits, `.`, `_`, `-`
    name: TopicName,
    /// How many partitions
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: u32,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// The topic
    name: TopicName,
    /// New number of partitions; it can only grow
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Settings {
    /// Records older than this may be deleted: `7d`, `12h`, or `forever` [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = age)]
    retention_age: Option<Bound>,
    /// The oldest records of a partition may be deleted beyond this: `10GiB`, or `unlimited` [default: unlimited]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    retention_bytes: Option<Bound>,
    /// What makes records go: `delete` (their age and number, as above), `compact` (a newer record of their key; every
    /// record needs one), or `compact,delete` (both) [default: delete]
    #[arg(long, value_name = "POLICY")]
    cleanup_policy: Option<CleanupPolicy>,
    /// Where keys are compacted, a null value that deletes its key stays readable this long [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = human::parse_duration_ms)]
    delete_retention: Option<u64>,
    /// Largest record: `1MiB` [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = record_bytes)]
    max_record_bytes: Option<u32>,
}

/// A bound that may be said to be absent.
#[derive(Debug, Clone, Copy)]
struct Bound(Option<u64>);

fn age(text: &str) -> Result<Bound, human::NotUnderstood> {
    if text == "forever" { Ok(Bound(None)) } else { human::parse_duration_ms(text).map(|ms| Bound(Some(ms))) }
}

fn size(text: &str) -> Result<Bound, human::NotUnderstood> {
    if text == "unlimited" { Ok(Bound(None)) } else { human::parse_bytes(text).map(|bytes| Bound(Some(bytes))) }
}

fn record_bytes(text: &str) -> Result<u32, String> {
    let bytes = human::parse_bytes(text).map_err(|error| error.to_string())?;
    u32::try_from(bytes).map_err(|_| format!("`{text}` is more than any record can have"))
}

impl Settings {
    /// These settings over those that hold now.
    fn retention(&self, now: Retention) -> Retention {
        Retention {
            age_ms: self.retention_age.map_or(now.age_ms, |bound| bound.0),
            bytes: self.retention_bytes.map_or(now.bytes, |bound| bound.0),
            policy: self.cleanup_policy.unwrap_or(now.policy),
            delete_retention_ms: self.delete_retention.unwrap_or(now.delete_retention_ms),
        }
    }

    fn has_retention(&self) -> bool {
        let Settings { retention_age, retention_bytes, cleanup_policy, delete_retention, max_record_bytes: _ } = self;
        let bounded = retention_age.is_some() || retention_bytes.is_some();
        bounded || cleanup_policy.is_some() || delete_retention.is_some()
    }
}

pub(crate) async fn run(command: Command, context: &mut Context) -> anyhow::Result<Exit> {
    match command {
        Command::Create(args) => create(args, context).await,
        Command::List => list(context).await,
        Command::Describe(args) => describe(args, context).await,
        Command::Alter(args) => alter(args, context).await,
        Command::Delete(args) => delete(args, context).await,
    }
}

async fn create(args: CreateArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let defaults = TopicConfig::default();
    let config = TopicConfig {
        retention: args.settings.retention(defaults.retention),
        max_record_bytes: args.settings.max_record_bytes.unwrap_or(defaults.max_record_bytes),
    };
    let client = context.common.connect().await?;
    let topic =
        client.admin().create_topic(CreateTopic { name: args.name, partitions: args.partitions, config }).await?;
    context.out.item(&TopicView::from(&topic), |topic| {
        let partitions = human::counted(topic.partitions.len() as u64, "partition");
        format!("topic `{}` with {partitions}", topic.topic)
    })?;
    client.close().await;
    Ok(Exit::Done)
}

async fn list(context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let topics = client.admin().topics().await?;
    let views: Vec<TopicView> = topics.iter().map(TopicView::from).collect();
    if views.is_empty() {
        context.out.say("no topics yet; create one: `weir topic create NAME`");
    } else {
        context.out.table(&views, &["topic", "partitions", "bytes", "cleanup", "retention"], |topic| {
            let bytes = topic.partitions.iter().map(|partition| partition.bytes).sum();
            let partitions = topic.partitions.len().to_string();
            vec![
                topic.topic.clone(),
                partitions,
                human::bytes(bytes),
                topic.cleanup_policy.to_owned(),
                retention(&topic.retention),
            ]
        })?;
    }
    client.close().await;
    Ok(Exit::Done)
}

async fn describe(args: NameArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let topic = client.admin().topic(&args.name).await?;
    print(&topic, context)?;
    client.close().await;
    Ok(Exit::Done)
}

async fn alter(args: AlterArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let AlterArgs { name, partitions, settings } = args;
    let max_record_bytes = settings.max_record_bytes;
    if partitions.is_none() && max_record_bytes.is_none() && !settings.has_retention() {
        return Err(Failure::new(Exit::Usage, "nothing to alter", "`weir topic alter --help` shows what can be").into());
    }
    let client = context.common.connect().await?;
    let now = client.admin().topic(&name).await?;
    let retention = settings.has_retention().then(|| settings.retention(now.config.retention));
    let topic = client.admin().alter_topic(AlterTopic { name, retention, max_record_bytes, partitions }).await?;
    print(&topic, context)?;
    client.close().await;
    Ok(Exit::Done)
}

async fn delete(args: NameArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    client.admin().delete_topic(&args.name).await?;
    let deleted = serde_json::json!({ "deleted_topic": args.name.as_str() });
    context.out.item(&deleted, |_| format!("deleted topic `{}`", args.name))?;
    client.close().await;
    Ok(Exit::Done)
}

fn print(topic: &TopicDescription, context: &mut Context) -> anyhow::Result<()> {
    let view = TopicView::from(topic);
    if context.out.is_json() {
        return context.out.json_line(&view);
    }
    let head = format!(
        "topic      {}\ncleanup    {}\nretention  {}\nrecord     at most {}\n\n",
        view.topic,
        cleanup(&view.retention),
        retention(&view.retention),
        human::bytes(u64::from(view.max_record_bytes))
    );
    context.out.raw(head.as_bytes())?;
    context.out.table(&view.partitions, &["partition", "log start offset", "high watermark", "bytes"], |partition| {
        vec![
            partition.partition.to_string(),
            partition.log_start_offset.to_string(),
            partition.high_watermark.to_string(),
            human::bytes(partition.bytes),
        ]
    })
}

fn cleanup(retention: &Retention) -> String {
    let Retention { policy, delete_retention_ms, .. } = retention;
    match retention.compacts() {
        true => format!("{policy}; tombstones stay {}", human::duration_ms(*delete_retention_ms)),
        false => policy.to_string(),
    }
}

/// What applies: where only keys are compacted, the bounds that are set have no effect.
fn retention(retention: &Retention) -> String {
    let age = retention.expires_age_ms().map(human::duration_ms);
    let bytes = retention.expires_bytes().map(|bytes| format!("{} a partition", human::bytes(bytes)));
    match (age, bytes) {
        (None, None) => "forever".to_owned(),
        (Some(age), None) => age,
        (None, Some(bytes)) => bytes,
        (Some(age), Some(bytes)) => format!("{age} or {bytes}"),
    }
}
