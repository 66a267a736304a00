//! The demo's broker, and what is deployed on it before the first record comes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use client::{Client, ClientConfig, CreateTopic, DeployTransform, Identity, TopicConfig};
use serde_json::json;
use server::{Server, ServerConfig};
use tempfile::TempDir;

use super::{
    plan::{Plan, Stage},
    screen::Screen,
};
use crate::{builtin, cmd::serve};

/// A running broker with the plan deployed, and a client of it.
pub(super) struct Setup {
    server: Server,
    client: Client,
    data_dir: PathBuf,
    /// Deleted at the end; `None` where the directory was given.
    temporary: Option<TempDir>,
}

impl Setup {
    /// Starts a broker, in a temporary directory unless one is given, and deploys the plan there over QUIC.
    pub(super) async fn start(kept_in: Option<PathBuf>, plan: &Plan, screen: &mut Screen<'_>) -> anyhow::Result<Setup> {
        screen.line("weir demo: web events in over QUIC, through WASM plugins, into redb, and out.")?;
        screen.heading("What runs")?;
        let temporary = match kept_in {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("weir-demo-").tempdir()?),
        };
        let data_dir = kept_in.or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned())).unwrap_or_default();
        let mut config = ServerConfig { data_dir: data_dir.clone(), ..ServerConfig::default() };
        // Any free port, and no trace of it for other commands: the broker is gone when they could use it.
        config.quic = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.runtime.announce = false;
        let server = serve::start(config).await?;
        let identity = Identity::load(server.identity_path())?;
        let client = Client::connect(ClientConfig::new([server.quic_addr().to_string()], identity)).await?;
        let setup = Setup { server, client, data_dir, temporary };
        setup.tell_broker(screen)?;
        setup.deploy(plan, screen).await?;
        Ok(setup)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Where the data is, if it stays.
    pub(super) fn kept_in(&self) -> Option<&Path> {
        self.temporary.is_none().then_some(self.data_dir.as_path())
    }

    /// Where the broker keeps what it compiled: it need not be done again in its own process.
    pub(super) fn plugin_dir(&self) -> PathBuf {
        self.data_dir.join("plugins")
    }

    /// Ends the broker, and deletes its directory if that was temporary.
    pub(super) async fn stop(self) {
        self.client.close().await;
        self.server.shutdown().await;
    }

    fn tell_broker(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let quic = self.server.quic_addr();
        screen.row("broker", &format!("{quic}, in this process"))?;
        screen.row("data", &self.data_dir.display().to_string())?;
        if screen.is_json() {
            let data_dir = self.data_dir.display().to_string();
            screen.out().json_line(&json!({ "step": "broker", "quic": quic.to_string(), "data_dir": data_dir }))?;
        }
        Ok(())
    }

    async fn deploy(&self, plan: &Plan, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let topic = CreateTopic { name: plan.topic.clone(), partitions: 1, config: TopicConfig::default() };
        self.client.admin().create_topic(topic).await?;
        let dead_letters = plan.dead_letter_topic();
        screen.row("topic", &format!("`{}`; what fails goes to `{dead_letters}`", plan.topic))?;
        for (stage, number) in plan.stages.iter().zip(1..) {
            let label = if number == 1 { "pipeline" } else { "" };
            screen.row(label, &format!("{number} {:<27}{}", stage.title(), stage.purpose))?;
            self.deploy_stage(plan, stage).await?;
            if screen.is_json() {
                let Stage { name, plugin, config, .. } = stage;
                let line = json!({
                    "step": "deploy", "topic": plan.topic.as_str(), "stage": number - 1, "transform": name.as_str(),
                    "plugin": plugin.as_str(), "config": config,
                });
                screen.out().json_line(&line)?;
            }
        }
        Ok(())
    }

    async fn deploy_stage(&self, plan: &Plan, stage: &Stage) -> anyhow::Result<()> {
        let builtin = builtin::find(stage.plugin.as_str()).expect("the plan uses plugins of the binary");
        self.client.admin().upload_plugin(stage.plugin.clone(), builtin.wasm).await?;
        let deploy = DeployTransform {
            name: Some(stage.name.clone()),
            config: stage.config.to_string(),
            ..DeployTransform::new(plan.topic.clone(), stage.plugin.clone())
        };
        self.client.admin().deploy_transform(deploy).await?;
        Ok(())
    }
}
