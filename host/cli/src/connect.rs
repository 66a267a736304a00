//! Which broker a command talks to, and as whom: the flags every command takes, and what stands in for them.
//!
//! Owns the rule. What is given by flag or environment holds; what is not is taken from the broker that runs on the
//! data directory, else from the data directory itself, else from the one broker of this user that runs here.
//!
//! Start at [`Common::connect`].

use std::path::{Path, PathBuf};

use client::{Client, ClientConfig, Identity};
use server::RunningBroker;

use crate::exit::{Exit, Failure};

/// Where a broker listens unless it is told otherwise.
pub(crate) const BROKER_DEFAULT: &str = "127.0.0.1:7433";

/// Where a broker keeps its data unless it is told otherwise.
pub(crate) const DATA_DIR_DEFAULT: &str = "./weir-data";

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Flags of every command")]
pub(crate) struct Common {
    /// The broker's data directory [default: ./weir-data]
    #[arg(long, global = true, env = "WEIR_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The broker's address [default: the one that runs here, else 127.0.0.1:7433]
    #[arg(long, global = true, env = "WEIR_BROKER", value_name = "HOST:PORT", hide_env_values = true)]
    pub(crate) broker: Option<String>,
    /// Who to be [default: the admin identity of the data directory]
    #[arg(long, global = true, env = "WEIR_IDENTITY", value_name = "FILE", hide_env_values = true)]
    pub(crate) identity: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A broker, and the identity to use there.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    broker: String,
    identity: PathBuf,
}

impl Common {
    /// The data directory a broker is to use.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT))
    }

    /// Connects to the broker that the flags, or what stands in for them, name.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        // A runtime directory that cannot be read only means that flags are needed.
        let running = server::running_brokers(&server::runtime_dir()).unwrap_or_default();
        let choice = self.choose(&running)?;
        let identity = Identity::load(&choice.identity).map_err(client::ConnectError::Identity)?;
        Ok(Client::connect(ClientConfig::new([choice.broker], identity)).await?)
    }

    fn choose(&self, running: &[RunningBroker]) -> Result<Choice, Failure> {
        let data_dir = self.data_dir();
        let here = self.broker_here(running, &data_dir)?;
        let broker = match (&self.broker, here) {
            (Some(broker), _) => broker.clone(),
            (None, Some(here)) => here.address.to_string(),
            (None, None) => BROKER_DEFAULT.to_owned(),
        };
        let identity = match (&self.identity, here) {
            (Some(identity), _) => identity.clone(),
            (None, Some(here)) => here.identity.clone(),
            (None, None) => admin_identity(&data_dir, &broker)?,
        };
        Ok(Choice { broker, identity })
    }

    /// The running broker that is meant, if one is.
    fn broker_here<'a>(
        &self,
        running: &'a [RunningBroker],
        data_dir: &Path,
    ) -> Result<Option<&'a RunningBroker>, Failure> {
        if let Some(broker) = &self.broker {
            let by_address = running.iter().find(|here| here.address.to_string() == *broker);
            // A data directory that was given by name outranks what happens to listen there.
            return Ok(by_address.filter(|here| self.data_dir.is_none() || same(&here.data_dir, data_dir)));
        }
        let on_data_dir = running.iter().find(|here| same(&here.data_dir, data_dir));
        if on_data_dir.is_some() || self.data_dir.is_some() || admin_path(data_dir).exists() {
            return Ok(on_data_dir);
        }
        match running {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            several => {
                let list: Vec<String> =
                    several.iter().map(|here| format!("{} ({})", here.address, here.data_dir.display())).collect();
                let text = format!("several brokers run here: {}", list.join(", "));
                Err(Failure::new(Exit::Usage, text, "choose one: `--broker HOST:PORT` or `--data-dir DIR`"))
            }
        }
    }
}

fn admin_path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity").join("admin.pem")
}

fn admin_identity(data_dir: &Path, broker: &str) -> Result<PathBuf, Failure> {
    let path = admin_path(data_dir);
    if path.exists() {
        return Ok(path);
    }
    let text = format!("no broker runs here, and there is no identity `{}` to reach `{broker}` with", path.display());
    Err(Failure::new(Exit::NoBroker, text, "start one with `weir serve`, or give `--broker` and `--identity`"))
}

fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        dir: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Host {
            Host { dir: tempfile::tempdir().unwrap() }
        }

        fn data_dir(&self, name: &str) -> PathBuf {
            let dir = self.dir.path().join(name);
            std::fs::create_dir_all(dir.join("identity")).unwrap();
            std::fs::write(dir.join("identity/admin.pem"), "").unwrap();
            dir
        }

        fn broker(&self, name: &str, port: u16) -> RunningBroker {
            let data_dir = self.data_dir(name);
            RunningBroker { address: ([127, 0, 0, 1], port).into(), identity: admin_path(&data_dir), data_dir }
        }
    }

    fn common(data_dir: Option<PathBuf>, broker: Option<&str>) -> Common {
        Common { data_dir, broker: broker.map(str::to_owned), identity: None, json: false }
    }

    #[test]
    fn the_one_broker_that_runs_needs_no_flag() {
        let host = Host::new();
        let one = host.broker("one", 7001);
        let chosen = common(None, None).choose(std::slice::from_ref(&one)).unwrap();
        assert_eq!(chosen, Choice { broker: "127.0.0.1:7001".to_owned(), identity: one.identity });
    }

    #[test]
    fn of_several_brokers_the_data_directory_or_the_address_chooses() {
        let host = Host::new();
        let (one, two) = (host.broker("one", 7001), host.broker("two", 7002));
        let running = [one.clone(), two.clone()];
        let by_dir = common(Some(two.data_dir.clone()), None).choose(&running).unwrap();
        assert_eq!(by_dir, Choice { broker: "127.0.0.1:7002".to_owned(), identity: two.identity });
        let by_address = common(None, Some("127.0.0.1:7001")).choose(&running).unwrap();
        assert_eq!(by_address.identity, one.identity);
        let failure = common(None, None).choose(&running).unwrap_err();
        assert!(failure.text.contains("127.0.0.1:7001") && failure.text.contains("127.0.0.1:7002"));
    }

    #[test]
    fn what_is_given_holds() {
        let host = Host::new();
        let (one, other) = (host.broker("one", 7001), host.data_dir("other"));
        let mut given = common(Some(other.clone()), Some("127.0.0.1:7001"));
        assert_eq!(given.choose(std::slice::from_ref(&one)).unwrap().identity, admin_path(&other));
        given.identity = Some(PathBuf::from("me.pem"));
        let chosen = given.choose(&[one]).unwrap();
        assert_eq!(chosen, Choice { broker: "127.0.0.1:7001".to_owned(), identity: PathBuf::from("me.pem") });
    }

    #[test]
    fn a_data_directory_whose_broker_left_no_trace_is_tried_at_the_default_address() {
        let host = Host::new();
        let dir = host.data_dir("one");
        let chosen = common(Some(dir.clone()), None).choose(&[]).unwrap();
        assert_eq!(chosen, Choice { broker: BROKER_DEFAULT.to_owned(), identity: admin_path(&dir) });
        let nowhere = common(Some(host.dir.path().join("nothing")), None).choose(&[]).unwrap_err();
        assert_eq!(nowhere.exit, Exit::NoBroker);
    }
}
