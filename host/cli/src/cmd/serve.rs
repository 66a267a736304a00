//! `weir serve`: a broker, until a signal ends it.
//!
//! Owns the process's signals. The first SIGTERM or SIGINT drains (answers what is in flight, then closes); a second
//! one ends at once, which loses nothing that was acknowledged.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use broker::OpenBrokerError;
use serde_json::json;
use server::{Budget, Helpers, Server, ServerConfig, StartError, StorageConfig};
use storage::OpenError;

use super::{Context, config::effective};
use crate::{
    compiler::ChildCompiler,
    exit::{Exit, Failure},
    human,
    prober::ChildProber,
};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  weir serve
  weir serve --quic 0.0.0.0:7433 --data-dir /var/lib/weir
  weir serve --quic 127.0.0.1:0 --json        # any free port; the ready line names it
  weir serve --storage-budget 10GiB           # or a share of the file system: 50%
  weir serve --config weir.toml

Prints one line that begins with `ready` once it serves. SIGTERM and Ctrl-C drain; a second one ends at once.
`WEIR_LOG=info` says more on stderr. `weir config show` prints every setting.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What can be set on the broker by flag; also taken by `config`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Settings {
    /// Address of the QUIC listener [default: 127.0.0.1:7433]
    #[arg(long, env = "WEIR_QUIC", value_name = "ADDR", hide_env_values = true)]
    pub(crate) quic: Option<SocketAddr>,
    /// Configuration file (TOML); flags outrank it
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) storage: StorageSettings,
}

/// Section `storage` of the configuration.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StorageSettings {
    /// What the broker may take of the disk: a size, or a share of the file system [default: 80%]
    #[arg(long, env = "WEIR_STORAGE_BUDGET", value_name = "SIZE", hide_env_values = true)]
    storage_budget: Option<Budget>,
    /// What is kept back within the budget for a full disk [default: 32MiB]
    #[arg(long, env = "WEIR_STORAGE_RESERVE", value_name = "SIZE", hide_env_values = true)]
    #[arg(value_parser = human::parse_bytes)]
    storage_reserve: Option<u64>,
    /// How long commits gather before they are written together, for flash that wears out [default: 0s]
    #[arg(long, env = "WEIR_STORAGE_COMMIT_INTERVAL", value_name = "DURATION", hide_env_values = true)]
    #[arg(value_parser = parse_duration)]
    storage_commit_interval: Option<Duration>,
}

impl StorageSettings {
    /// Sets what was given.
    pub(crate) fn apply(&self, config: &mut StorageConfig) {
        config.budget = self.storage_budget.unwrap_or(config.budget);
        config.reserve = self.storage_reserve.unwrap_or(config.reserve);
        config.commit_interval = self.storage_commit_interval.unwrap_or(config.commit_interval);
    }
}

fn parse_duration(text: &str) -> Result<Duration, human::NotUnderstood> {
    human::parse_duration_ms(text).map(Duration::from_millis)
}

pub(crate) async fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    // Before the start, so that a signal during it is not lost.
    let mut signals = Signals::listen()?;
    let config = effective(&args.settings, &context.common)?;
    let data_dir = config.data_dir.clone();
    let server = start(config).await?;
    let (quic, identity) = (server.quic_addr(), server.identity_path());
    let data_dir = data_dir.canonicalize().unwrap_or(data_dir);
    let ready = json!({
        "ready": true,
        "quic": quic.to_string(),
        "data_dir": data_dir.display().to_string(),
        "identity": identity.display().to_string(),
    });
    context.out.item(&ready, |_| format!("ready  quic {quic}  data {}", data_dir.display()))?;
    context.out.flush()?;
    signals.next().await;
    context.out.say("draining; a second signal ends at once");
    tokio::select! {
        () = server.shutdown() => Ok(Exit::Done),
        () = signals.next() => {
            context.out.say("ended at once");
            std::process::exit(Exit::Failed as i32)
        }
    }
}

/// Starts a broker; what keeps it from starting ends with [`Exit::CannotServe`].
pub(crate) async fn start(config: ServerConfig) -> anyhow::Result<Server> {
    let data_dir = config.data_dir.clone();
    let compiler = Arc::new(ChildCompiler::new(&config.transforms));
    let helpers = Helpers { prober: Arc::new(ChildProber), compiler };
    Server::start_with(config, helpers).await.map_err(|error| {
        let advice = match &error {
            StartError::AddressInUse { .. } | StartError::Listen { .. } => {
                "`weir status` shows whether a broker runs here; `--quic 127.0.0.1:0` takes any free port"
            }
            StartError::Config(_) => "`weir config show` prints every key with its value",
            StartError::Open { source, .. } if is_damaged(source) => {
                "`weir verify DIR` says all that is damaged; `weir salvage DIR --to NEW` saves what is sound"
            }
            _ => "`weir status` shows whether a broker runs on it; `--data-dir DIR` takes another directory",
        };
        let text = format!("the broker cannot start on `{}`", data_dir.display());
        Failure::new(Exit::CannotServe, text, advice).because(error).into()
    })
}

/// Whether a data directory does not open because of what is in it.
fn is_damaged(error: &OpenBrokerError) -> bool {
    use broker::OpenBrokerError::{PartitionMissing, Row, Store};
    matches!(error, Store(OpenError::Damaged { .. }) | PartitionMissing { .. } | Row { .. })
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn listen() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> io::Result<Signals> {
        Ok(Signals {})
    }

    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) {
        // Without a console there is no signal to wait for: the broker runs until it is ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
