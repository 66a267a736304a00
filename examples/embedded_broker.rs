//! A whole broker inside a program: started, used over QUIC, and stopped with everything answered.
//!
//! `cargo run --example embedded-broker`

use anyhow::{Context, Result};
use client::{
    Assignment, Client, ClientConfig, ConsumerConfig, CreateTopic, Identity, NOW, OffsetSpec, ProducerConfig, Record,
    TopicConfig, TopicName,
};
use server::{Server, ServerConfig};

#[tokio::main]
async fn main() -> Result<()> {
    let data_dir = tempfile::tempdir()?;
    // Port 0: the system chooses a free one.
    let config =
        ServerConfig { data_dir: data_dir.path().to_owned(), quic: "127.0.0.1:0".parse()?, ..ServerConfig::default() };
    let server = Server::start(config).await?;
    println!("broker at {}", server.quic_addr());

    let identity = Identity::load(server.identity_path())?;
    let client = Client::connect(ClientConfig::new([server.quic_addr().to_string()], identity)).await?;
    let topic: TopicName = "greetings".parse()?;
    let create = CreateTopic { name: topic.clone(), partitions: 1, config: TopicConfig::default() };
    client.admin().create_topic(create).await?;

    let producer = client.producer(ProducerConfig::default());
    let delivery = producer.send(&topic, Record::unkeyed("hello", NOW)).await?.await?;
    println!("stored at offset {}", delivery.offset());

    let from_start = Assignment { topic, partition: 0, from: OffsetSpec::Beginning };
    let mut consumer = client.consumer(ConsumerConfig::new([from_start]));
    let record = consumer.next().await.context("a consumer that follows has no end")??;
    println!("read back: {}", String::from_utf8_lossy(&record.value.unwrap_or_default()));

    producer.close().await?;
    client.close().await;
    server.shutdown().await;
    Ok(())
}
