//! Uploads a plugin of one's own, deploys it on a topic, and shows what it does to each record.
//!
//! The plugin is the crate in `custom-plugin/`; its built module lies beside it. After a change, build it again:
//!
//! ```sh
//! cargo build --release --package custom-plugin --target wasm32-unknown-unknown
//! cargo run --example custom-plugin target/wasm32-unknown-unknown/release/custom_plugin.wasm
//! ```

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use client::{
    Assignment, Client, ClientConfig, ConsumerConfig, CreateTopic, DeployTransform, Identity, NOW, OffsetSpec, OnError,
    Outcome, ProducerConfig, Record, TopicConfig, TopicName, Until,
};
use server::{Server, ServerConfig};

#[tokio::main]
async fn main() -> Result<()> {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/custom-plugin/custom-plugin.wasm");
    let file = env::args_os().nth(1).map_or_else(|| PathBuf::from(kept), PathBuf::from);
    let wasm = fs::read(&file).with_context(|| format!("read `{}`", file.display()))?;

    let data_dir = tempfile::tempdir()?;
    let config =
        ServerConfig { data_dir: data_dir.path().to_owned(), quic: "127.0.0.1:0".parse()?, ..ServerConfig::default() };
    let server = Server::start(config).await?;
    let identity = Identity::load(server.identity_path())?;
    let client = Client::connect(ClientConfig::new([server.quic_addr().to_string()], identity)).await?;
    let admin = client.admin();

    let topic: TopicName = "readings".parse()?;
    admin.create_topic(CreateTopic { name: topic.clone(), partitions: 1, config: TopicConfig::default() }).await?;
    let plugin = admin.upload_plugin("hot-readings".parse()?, wasm).await?;
    println!("uploaded `{}`, {} bytes: {}", plugin.name, plugin.wasm_bytes, plugin.describe);
    let deploy = DeployTransform {
        config: r#"{"above": 30}"#.to_owned(),
        on_error: OnError::Reject,
        ..DeployTransform::new(topic.clone(), plugin.name)
    };
    admin.deploy_transform(deploy).await?;

    let producer = client.producer(ProducerConfig::default());
    let mut deliveries = Vec::new();
    for line in ["kitchen 21.5", "oven 180", "attic 34.2", "no reading"] {
        deliveries.push((line, producer.send(&topic, Record::unkeyed(line, NOW)).await?));
    }
    for (line, delivery) in deliveries {
        match delivery.await?.outcome() {
            Outcome::Accepted => println!("{line}: accepted"),
            Outcome::Rejected(reject) => println!("{line}: rejected, {}", reject.text),
        }
    }
    let books = producer.close().await?;
    println!("{} kept, {} dropped, {} rejected", books.kept, books.dropped, books.rejected);

    let from_start = Assignment { topic, partition: 0, from: OffsetSpec::Beginning };
    let mut consumer = client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([from_start]) });
    while let Some(record) = consumer.next().await {
        let record = record?;
        println!("offset {}: {}", record.offset, String::from_utf8_lossy(&record.value.unwrap_or_default()));
    }
    client.close().await;
    server.shutdown().await;
    Ok(())
}
