//! The commands, one file each: its arguments, and what it does with them.
//!
//! Start at [`Command`].

mod backup;
mod completion;
mod config;
mod consume;
mod demo;
mod export;
mod import;
mod internal;
mod plugin;
mod plugin_test;
mod produce;
mod restore;
mod salvage;
mod serve;
mod status;
mod topic;
mod transform;
mod verify;

use clap::Subcommand;

pub(crate) use self::internal::kind_name;
use crate::{connect::Common, exit::Exit, output::Output};

/// What a command works with.
pub(crate) struct Context {
    /// Flags that every command takes.
    pub(crate) common: Common,
    /// Where its answers go.
    pub(crate) out: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show all of it in one minute: a broker, a pipeline, web events in, what is left of them out
    Demo(demo::Args),
    /// Run a broker
    Serve(serve::Args),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Command),
    /// Send lines to a topic, a record each
    Produce(produce::Args),
    /// Read a topic's records
    Consume(consume::Args),
    /// Write a topic to files of record batches, as Kafka's own log has them
    Export(export::Args),
    /// Send files of record batches to a topic: those of an export, or of Kafka's own log
    Import(import::Args),
    /// Upload, list, describe, try and delete plugins
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Deploy plugins on topics, and see what they do there
    #[command(subcommand)]
    Transform(transform::Command),
    /// Show how the broker is
    Status(status::Args),
    /// Check every byte of a data directory, without a broker
    Verify(verify::Args),
    /// Save what is sound in a damaged data directory into a new one, without a broker
    Salvage(salvage::Args),
    /// Back up a running broker into a directory of its host
    Backup(backup::Args),
    /// Make a new data directory out of a backup, as the broker stood at any commit or time
    Restore(restore::Args),
    /// Show or check the configuration of `serve`
    #[command(subcommand)]
    Config(config::Command),
    /// Print completions for a shell
    Completion(completion::Args),
    /// What the binary runs itself again for
    #[command(subcommand, hide = true)]
    Internal(internal::Command),
}

/// Runs a command to its end.
pub(crate) fn run(command: Command, context: Context) -> anyhow::Result<Exit> {
    let mut context = context;
    let done = match command {
        Command::Completion(args) => completion::run(&args, &mut context),
        Command::Config(command) => config::run(&command, &mut context),
        Command::Internal(command) => internal::run(&command, &mut context),
        Command::Restore(args) => restore::run(&args, &mut context),
        Command::Verify(args) => verify::run(&args, &mut context),
        Command::Salvage(args) => salvage::run(&args, &mut context),
        Command::Plugin(plugin::Command::Test(args)) => plugin_test::run(&args, &mut context),
        command => runtime()?.block_on(Box::pin(run_async(command, &mut context))),
    }?;
    context.out.flush()?;
    Ok(done)
}

async fn run_async(command: Command, context: &mut Context) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => demo::run(&args, context).await,
        Command::Serve(args) => serve::run(&args, context).await,
        Command::Topic(command) => topic::run(command, context).await,
        Command::Produce(args) => produce::run(args, context).await,
        Command::Consume(args) => consume::run(args, context).await,
        Command::Export(args) => export::run(args, context).await,
        Command::Import(args) => import::run(args, context).await,
        Command::Plugin(command) => plugin::run(command, context).await,
        Command::Transform(command) => transform::run(command, context).await,
        Command::Status(args) => status::run(&args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Config(_)
        | Command::Completion(_)
        | Command::Internal(_)
        | Command::Verify(_)
        | Command::Salvage(_)
        | Command::Restore(_) => {
            unreachable!("they need no runtime and ran before")
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
