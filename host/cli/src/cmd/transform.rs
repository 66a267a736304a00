//! `weir transform`: plugins at work on topics.

use clap::{Args, Subcommand};
use protocol::{
    OnError, PluginName, TopicName, TransformLimits, TransformName,
    control::{DeployTransform, Placement},
};

use super::Context;
use crate::{
    exit::{Exit, Failure},
    human,
    view::TransformView,
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
    /// A topic it may route records to; can be given more than once
    #[arg(long = "target", value_name = "TOPIC")]
    targets: Vec<TopicName>,
    /// Memory one instance may use [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = human::parse_bytes)]
    memory: Option<u64>,
    /// CPU time it may take for one batch [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    deadline: Option<u32>,
}

fn deadline(text: &str) -> Result<u32, String> {
    let ms = human::parse_duration_ms(text).map_err(|error| error.to_string())?;
    u32::try_from(ms).map_err(|_| format!("`{text}` is too long for a deadline"))
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
        Command::Remove(args) => remove(args, context).await,
    }
}

async fn deploy(args: DeployArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let defaults = TransformLimits::default();
    let limits = (args.memory.is_some() || args.deadline.is_some()).then(|| TransformLimits {
        memory_bytes: args.memory.unwrap_or(defaults.memory_bytes),
        deadline_ms: args.deadline.unwrap_or(defaults.deadline_ms),
        ..defaults
    });
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
        limits,
        targets: args.targets,
        placement,
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

fn text(view: &TransformView) -> String {
    let targets = if view.targets.is_empty() { "none".to_owned() } else { view.targets.join(", ") };
    let stats = &view.stats;
    format!(
        "transform  {} (stage {} of topic `{}`)\nplugin     {} ({})\nconfig     {}\non error   {}\ntargets    {targets}\n\
         limits     {} of memory, {} of CPU time and {} of output a batch\n\
         records    {} in, {} kept, {} dropped, {} failed; {} out\ncost       {} ns a record, {}, {}",
        view.transform,
        view.stage + 1,
        view.topic,
        view.plugin,
        &view.plugin_hash[..12],
        view.config,
        view.on_error,
        human::bytes(view.memory_bytes),
        human::duration_ms(u64::from(view.deadline_ms)),
        human::bytes(view.output_bytes),
        human::count(stats.records_in),
        human::count(stats.kept),
        human::count(stats.dropped),
        human::count(stats.failed),
        human::count(stats.records_out),
        human::count(stats.ns_per_record),
        human::counted(stats.batches, "batch"),
        human::counted(stats.traps, "trap"),
    )
}

async fn remove(args: OneArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    client.admin().remove_transform(&args.topic, &args.name).await?;
    let removed = serde_json::json!({ "removed_transform": args.name.as_str(), "topic": args.topic.as_str() });
    context.out.item(&removed, |_| format!("removed transform `{}` from topic `{}`", args.name, args.topic))?;
    client.close().await;
    Ok(Exit::Done)
}
