//! `weir transform`: plugins at work on topics.

use clap::{Args, Subcommand};
use protocol::{
    BreakerPolicy, Isolation, LimitChanges, OnError, PluginName, TopicName, TransformName,
    control::{AlterTransform, DeployTransform, Placement},
};

use super::Context;
use crate::{
    exit::{Exit, Failure},
    human,
    view::{LimitsView, StatsView, TransformView},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a plugin on a topic's records, before they are stored
    #[command(after_help = "Examples:
  weir transform deploy --topic web --plugin json-filter \\
      --config '{\"pointer\":\"/status\",\"op\":\">=\",\"value\":400}'
  weir transform deploy --topic web --plugin mask --name privacy --before json-filter \\
      --config '{\"network\":[\"/ip\"],\"redact\":[\"/user/email\"]}' --on-error reject

Deploying a name again replaces that transform at once, without stopping the topic.")]
    Deploy(Box<DeployArgs>),
    /// List transforms with what they have done
    #[command(after_help = "Examples:
  weir transform list
  weir transform list --topic web --json")]
    List(ListArgs),
    /// Show a transform's settings and what it has done
    #[command(after_help = "Example:
  weir transform describe --topic web json-filter")]
    Describe(OneArgs),
    /// Change limits and policies of a transform while it runs
    #[command(after_help = "Examples:
  weir transform set --topic web json-filter --deadline 50ms --memory 16MiB
  weir transform set --topic web privacy --cpu-max 50 --breaker pause

The next batch meets the change; nothing stops, and nothing is counted anew.")]
    Set(Box<SetArgs>),
    /// Close a transform's breaker, and let partitions that it paused go on
    #[command(after_help = "Example:
  weir transform resume --topic web json-filter

A breaker opens by itself when a transform keeps failing, and closes when a batch passes again.")]
    Resume(OneArgs),
    /// Take a transform off its topic
    #[command(after_help = "Example:
  weir transform remove --topic web json-filter")]
    Remove(OneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The topic
    #[arg(long)]
    topic: TopicName,
    /// The plugin: one that was uploaded
    #[arg(long)]
    plugin: PluginName,
    /// Its configuration
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// Name of the transform on the topic [default: the plugin's]
    #[arg(long)]
    name: Option<TransformName>,
    /// Place it right before this transform [default: last, or where it was]
    #[arg(long, value_name = "NAME", conflicts_with = "after")]
    before: Option<TransformName>,
    /// Place it right after this transform
    #[arg(long, value_name = "NAME")]
    after: Option<TransformName>,
    /// What becomes of records it fails on: dead-letter, drop, reject or pause
    #[arg(long, value_name = "POLICY", default_value_t = OnError::DeadLetter)]
    on_error: OnError,
    /// What becomes of records while it keeps failing and is not called: dead-letter, pause or pass-through [default:
    /// dead-letter beside --on-error dead-letter, else pause]
    #[arg(long, value_name = "POLICY")]
    breaker: Option<BreakerPolicy>,
    /// Which instance a batch meets: one that served others (reused), or a fresh one
    #[arg(long, value_name = "KIND", default_value_t = Isolation::Reused)]
    isolation: Isolation,
    /// A topic it may route records to; can be given more than once
    #[arg(long = "target", value_name = "TOPIC")]
    targets: Vec<TopicName>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What it may use. All of it can be changed while it runs: `weir transform set`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Memory of one instance [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = human::parse_bytes)]
    memory: Option<u64>,
    /// Stack of a call: 64KiB, 128KiB, .. 1MiB [default: 256KiB]
    #[arg(long, value_name = "SIZE", value_parser = small_bytes)]
    stack: Option<u32>,
    /// CPU time for one batch [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<u32>,
    /// CPU time for one record [default: 250ms]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    record_deadline: Option<u32>,
    /// What it may return for one batch [default: 32MiB]
    #[arg(long, value_name = "SIZE", value_parser = human::parse_bytes)]
    output: Option<u64>,
    /// Records it may return for one batch [default: 1048576]
    #[arg(long, value_name = "N")]
    output_records: Option<u32>,
    /// Failures of one batch that are followed down to the record; past it, the rest of the batch fails [default: 64]
    #[arg(long, value_name = "N")]
    failures: Option<u32>,
    /// CPU time for one batch after its first failure [default: 16s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    failure_time: Option<u32>,
    /// Lines it may log in a second [default: 100]
    #[arg(long, value_name = "N")]
    log_rate: Option<u32>,
    /// Its weight where several transforms want the processor [default: 100]
    #[arg(long, value_name = "WEIGHT")]
    cpu_share: Option<u32>,
    /// The most it may use, in percent of one processor; 0: whatever is free [default: 0]
    #[arg(long, value_name = "PERCENT")]
    cpu_max: Option<u32>,
    /// Batches in a row that it fails on before its breaker opens; 0: it never does [default: 5]
    #[arg(long, value_name = "N")]
    breaker_after: Option<u32>,
}

impl From<LimitArgs> for LimitChanges {
    fn from(args: LimitArgs) -> LimitChanges {
        LimitChanges {
            memory_bytes: args.memory,
            deadline_ms: args.deadline,
            output_bytes: args.output,
            record_deadline_ms: args.record_deadline,
            stack_bytes: args.stack,
            output_records: args.output_records,
            failures: args.failures,
            failure_ms: args.failure_time,
            log_lines_per_s: args.log_rate,
            cpu_share: args.cpu_share,
            cpu_percent: args.cpu_max,
            breaker_batches: args.breaker_after,
        }
    }
}

fn duration(text: &str) -> Result<u32, String> {
    let ms = human::parse_duration_ms(text).map_err(|error| error.to_string())?;
    u32::try_from(ms).map_err(|_| format!("`{text}` is too long"))
}

fn small_bytes(text: &str) -> Result<u32, String> {
    let bytes = human::parse_bytes(text).map_err(|error| error.to_string())?;
    u32::try_from(bytes).map_err(|_| format!("`{text}` is too much"))
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The topic
    #[arg(long)]
    topic: TopicName,
    /// The transform
    name: TransformName,
    /// What becomes of records it fails on: dead-letter, drop, reject or pause
    #[arg(long, value_name = "POLICY")]
    on_error: Option<OnError>,
    /// What becomes of records while it keeps failing and is not called: dead-letter, pause or pass-through
    #[arg(long, value_name = "POLICY")]
    breaker: Option<BreakerPolicy>,
    /// Which instance a batch meets: one that served others (reused), or a fresh one
    #[arg(long, value_name = "KIND")]
    isolation: Option<Isolation>,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Those of this topic only
    #[arg(long)]
    topic: Option<TopicName>,
}

#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The topic
    #[arg(long)]
    topic: TopicName,
    /// The transform
    name: TransformName,
}

pub(crate) async fn run(command: Command, context: &mut Context) -> anyhow::Result<Exit> {
    match command {
        Command::Deploy(args) => deploy(*args, context).await,
        Command::List(args) => list(args, context).await,
        Command::Describe(args) => describe(args, context).await,
        Command::Set(args) => set(*args, context).await,
        Command::Resume(args) => resume(args, context).await,
        Command::Remove(args) => remove(args, context).await,
    }
}

async fn deploy(args: DeployArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let placement = match (args.before, args.after) {
        (Some(name), _) => Placement::Before(name),
        (None, Some(name)) => Placement::After(name),
        (None, None) => Placement::Last,
    };
    let deploy = DeployTransform {
        topic: args.topic,
        name: args.name,
        plugin: args.plugin,
        config: args.config,
        on_error: args.on_error,
        limits: args.limits.into(),
        targets: args.targets,
        placement,
        isolation: args.isolation,
        breaker: args.breaker,
    };
    let client = context.common.connect().await?;
    let transform = client.admin().deploy_transform(deploy).await?;
    context.out.item(&TransformView::from(&transform), |transform| {
        let TransformView { transform, topic, stage, plugin, .. } = transform;
        format!("transform `{transform}` (plugin `{plugin}`) is stage {} of topic `{topic}`", stage + 1)
    })?;
    client.close().await;
    Ok(Exit::Done)
}

async fn list(args: ListArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let transforms = client.admin().transforms(args.topic.as_ref()).await?;
    let views: Vec<TransformView> = transforms.iter().map(TransformView::from).collect();
    if views.is_empty() {
        context.out.say("no transforms; deploy one: `weir transform deploy --topic T --plugin NAME --config JSON`");
    } else {
        let columns = ["topic", "stage", "transform", "plugin", "in", "kept", "dropped", "failed", "ns/record"];
        context.out.table(&views, &columns, |transform| {
            let stats = &transform.stats;
            let numbers = [stats.records_in, stats.kept, stats.dropped, stats.failed, stats.ns_per_record];
            let stage = (transform.stage + 1).to_string();
            let names = [transform.topic.clone(), stage, transform.transform.clone(), transform.plugin.clone()];
            names.into_iter().chain(numbers.map(human::count)).collect()
        })?;
    }
    client.close().await;
    Ok(Exit::Done)
}

async fn describe(args: OneArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let transforms = client.admin().transforms(Some(&args.topic)).await?;
    let found = transforms.iter().find(|transform| transform.spec.name == args.name).ok_or_else(|| {
        let text = format!("topic `{}` has no transform `{}`", args.topic, args.name);
        Failure::new(Exit::NotFound, text, "`weir transform list` shows what is deployed")
    })?;
    context.out.item(&TransformView::from(found), text)?;
    client.close().await;
    Ok(Exit::Done)
}

async fn set(args: SetArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let SetArgs { topic, name, on_error, breaker, isolation, limits } = args;
    let change =
        AlterTransform { limits: limits.into(), on_error, isolation, breaker, ..AlterTransform::new(topic, name) };
    if change == AlterTransform::new(change.topic.clone(), change.name.clone()) {
        let text = "nothing to change was given".to_owned();
        return Err(Failure::new(Exit::Usage, text, "`weir transform set --help` lists what can be set").into());
    }
    let client = context.common.connect().await?;
    let transform = client.admin().alter_transform(change).await?;
    context.out.item(&TransformView::from(&transform), text)?;
    client.close().await;
    Ok(Exit::Done)
}

async fn resume(args: OneArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let transform = client.admin().resume_transform(&args.topic, &args.name).await?;
    context.out.item(&TransformView::from(&transform), |view| {
        format!("transform `{}` on topic `{}` runs again", view.transform, view.topic)
    })?;
    client.close().await;
    Ok(Exit::Done)
}

/// Everything about one transform, a line each.
fn text(view: &TransformView) -> String {
    let targets = if view.targets.is_empty() { "none".to_owned() } else { view.targets.join(", ") };
    let name = format!("{} (stage {} of topic `{}`)", view.transform, view.stage + 1, view.topic);
    let lines = [
        ("transform", name),
        ("plugin", format!("{} ({})", view.plugin, &view.plugin_hash[..12])),
        ("config", view.config.to_string()),
        ("on error", format!("{}; breaker: {}", view.on_error, view.breaker)),
        ("targets", targets),
        (
            "instances",
            format!("{}: {}, {}", view.isolation, view.usage.instances, human::bytes(view.usage.memory_bytes)),
        ),
        ("limits", limits_text(&view.limits)),
        ("records", records_text(&view.stats)),
        ("cost", cost_text(&view.stats)),
        ("breaker", breaker_text(view)),
    ];
    lines.map(|(what, text)| format!("{what:<10} {text}")).join("\n")
}

fn limits_text(limits: &LimitsView) -> String {
    let ms = |ms: u32| human::duration_ms(u64::from(ms));
    let cap = if limits.cpu_percent == 0 { String::new() } else { format!(", at most {} %", limits.cpu_percent) };
    format!(
        "{} of memory, {} of stack; CPU: {} a batch, {} a record, share {}{cap}\n           output: {}, {} a batch; \
         failures: {}, {} a batch; {} log lines a second",
        human::bytes(limits.memory_bytes),
        human::bytes(u64::from(limits.stack_bytes)),
        ms(limits.deadline_ms),
        ms(limits.record_deadline_ms),
        limits.cpu_share,
        human::bytes(limits.output_bytes),
        human::counted(u64::from(limits.output_records), "record"),
        human::count(u64::from(limits.failures)),
        ms(limits.failure_ms),
        human::count(u64::from(limits.log_lines_per_s)),
    )
}

fn records_text(stats: &StatsView) -> String {
    format!(
        "{} in, {} kept, {} dropped, {} failed; {} out",
        human::count(stats.records_in),
        human::count(stats.kept),
        human::count(stats.dropped),
        human::count(stats.failed),
        human::count(stats.records_out),
    )
}

fn cost_text(stats: &StatsView) -> String {
    format!(
        "{} ns and {} a record, {}; {}, {} over a deadline; {} of {} cut",
        human::count(stats.ns_per_record),
        human::bytes(stats.bytes_per_record),
        human::counted(stats.batches, "batch"),
        human::counted(stats.traps, "trap"),
        human::count(stats.deadline_hits),
        human::count(stats.log_lines_cut),
        human::counted(stats.log_lines, "log line"),
    )
}

fn breaker_text(view: &TransformView) -> String {
    let so_far = format!(
        "opened {}, {} kept from it",
        human::counted(view.stats.trips, "time"),
        human::counted(view.stats.bypassed, "record")
    );
    match &view.usage.breaker_open {
        None => format!("closed; {so_far}"),
        Some(open) => format!(
            "OPEN: {}; tried again in {}, or by `weir transform resume --topic {} {}`; {so_far}",
            open.cause,
            human::duration_ms(open.retry_in_ms),
            view.topic,
            view.transform
        ),
    }
}

async fn remove(args: OneArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    client.admin().remove_transform(&args.topic, &args.name).await?;
    let removed = serde_json::json!({ "removed_transform": args.name.as_str(), "topic": args.topic.as_str() });
    context.out.item(&removed, |_| format!("removed transform `{}` from topic `{}`", args.name, args.topic))?;
    client.close().await;
    Ok(Exit::Done)
}
