//! `weir config`: what `serve` would run with.

use clap::Subcommand;
use server::ServerConfig;

use super::{Context, serve::Settings};
use crate::{
    connect::Common,
    exit::{Exit, Failure},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print every setting of `serve` with the value in force
    #[command(after_help = "Examples:
  weir config show
  weir config show --config weir.toml > all.toml")]
    Show(Settings),
    /// Say whether `serve` would take the configuration, and if not, why
    #[command(after_help = "Example:
  weir config check --config weir.toml")]
    Check(Settings),
}

pub(crate) fn run(command: &Command, context: &mut Context) -> anyhow::Result<Exit> {
    match command {
        Command::Show(settings) => {
            let config = effective(settings, &context.common)?;
            context.out.item(&config, |config| config.to_toml().trim_end().to_owned())?;
        }
        Command::Check(settings) => {
            effective(settings, &context.common)?;
            context.out.item(&serde_json::json!({ "valid": true }), |_| "the configuration is valid".to_owned())?;
        }
    }
    Ok(Exit::Done)
}

/// The file, if there is one, under what flags and environment say.
pub(crate) fn effective(settings: &Settings, common: &Common) -> anyhow::Result<ServerConfig> {
    let refused = |error| {
        let advice = "`weir config show` prints every key with its default";
        Failure::new(Exit::Refused, "the configuration cannot be used", advice).because(error)
    };
    let mut config = match &settings.config {
        Some(file) => ServerConfig::load(file).map_err(refused)?,
        None => ServerConfig::default(),
    };
    if let Some(data_dir) = &common.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    if let Some(quic) = settings.quic {
        config.quic = quic;
    }
    settings.storage.apply(&mut config.storage);
    config.check().map_err(refused)?;
    Ok(config)
}
