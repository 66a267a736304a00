//! `weir plugin`: modules on the broker, and (without one) a module tried on a file.

use clap::{Args, Subcommand};
use protocol::PluginName;
use serde_json::{Value, json};

use super::{Context, plugin_test};
use crate::{
    builtin,
    exit::{Exit, Failure},
    human,
    view::PluginView,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Upload a module under a name; the same name again replaces what new deployments use
    #[command(after_help = "Examples:
  weir plugin upload json-filter builtin:json-filter
  weir plugin upload enrich target/wasm32-unknown-unknown/release/enrich.wasm

In the binary: access-log-json, contains, json-filter, json-project, mask, sample.")]
    Upload(UploadArgs),
    /// List plugins
    #[command(after_help = "Examples:
  weir plugin list
  weir plugin list --json")]
    List,
    /// Show what a plugin says of itself: version, configuration, what it asks for
    #[command(after_help = "Example:
  weir plugin describe json-filter")]
    Describe(NameArgs),
    /// Delete a plugin that no transform uses
    #[command(after_help = "Example:
  weir plugin delete json-filter")]
    Delete(NameArgs),
    /// Run a module on a file, without a broker, and show what it does with each record
    Test(plugin_test::Args),
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The plugin
    name: PluginName,
}

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// Its name on the broker
    name: PluginName,
    /// The module: a .wasm file, or `builtin:NAME`
    #[arg(value_name = "FILE|builtin:NAME")]
    source: String,
}

pub(crate) async fn run(command: Command, context: &mut Context) -> anyhow::Result<Exit> {
    match command {
        Command::Upload(args) => upload(args, context).await,
        Command::List => list(context).await,
        Command::Describe(args) => describe(args, context).await,
        Command::Delete(args) => delete(args, context).await,
        Command::Test(args) => plugin_test::run(&args, context),
    }
}

async fn upload(args: UploadArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let wasm = builtin::read_module(&args.source)?;
    let client = context.common.connect().await?;
    let plugin = client.admin().upload_plugin(args.name, wasm).await?;
    context.out.item(&PluginView::from(&plugin), |plugin| {
        format!("plugin `{}`, {}, sha256 {}", plugin.plugin, human::bytes(plugin.wasm_bytes), plugin.hash)
    })?;
    client.close().await;
    Ok(Exit::Done)
}

async fn list(context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let plugins = client.admin().plugins().await?;
    let views: Vec<PluginView> = plugins.iter().map(PluginView::from).collect();
    if views.is_empty() {
        context.out.say("no plugins yet; upload one: `weir plugin upload json-filter builtin:json-filter`");
    } else {
        context.out.table(&views, &["plugin", "size", "sha256", "uploaded"], |plugin| {
            let hash = plugin.hash[..12].to_owned();
            let uploaded = human::time((plugin.uploaded_at_ms / 1_000 * 1_000) as i64);
            vec![plugin.plugin.clone(), human::bytes(plugin.wasm_bytes), hash, uploaded]
        })?;
    }
    client.close().await;
    Ok(Exit::Done)
}

async fn describe(args: NameArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    let plugins = client.admin().plugins().await?;
    let plugin = plugins.iter().find(|plugin| plugin.name == args.name).ok_or_else(|| {
        let text = format!("there is no plugin `{}`", args.name);
        Failure::new(Exit::NotFound, text, "`weir plugin list` shows what was uploaded")
    })?;
    context.out.item(&PluginView::from(plugin), text)?;
    client.close().await;
    Ok(Exit::Done)
}

fn text(plugin: &PluginView) -> String {
    let says = match &plugin.describe {
        Value::String(text) if text.is_empty() => "nothing (it has no `weir_describe`)".to_owned(),
        Value::String(text) => text.clone(),
        value => format!("\n{}", serde_json::to_string_pretty(value).unwrap_or_default()),
    };
    format!(
        "plugin    {}\nsize      {}\nsha256    {}\nuploaded  {}\nsays      {says}",
        plugin.plugin,
        human::bytes(plugin.wasm_bytes),
        plugin.hash,
        human::time(plugin.uploaded_at_ms as i64),
    )
}

async fn delete(args: NameArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    client.admin().delete_plugin(&args.name).await?;
    context
        .out
        .item(&json!({ "deleted_plugin": args.name.as_str() }), |_| format!("deleted plugin `{}`", args.name))?;
    client.close().await;
    Ok(Exit::Done)
}
