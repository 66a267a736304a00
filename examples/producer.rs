//! Writes some clicks to a topic, and tells what became of them.
//!
//! With a broker running in this folder (`weir serve`): `cargo run --example producer`. Another one is named by
//! `WEIR_BROKER` and `WEIR_IDENTITY`.

use std::env;

use anyhow::Result;
use client::{
    Client, ClientConfig, CreateTopic, Header, Identity, NOW, Outcome, ProducerConfig, Record, TopicConfig, TopicName,
};

#[tokio::main]
async fn main() -> Result<()> {
    let broker = env::var("WEIR_BROKER").unwrap_or_else(|_| "127.0.0.1:7433".to_owned());
    let identity = env::var("WEIR_IDENTITY").unwrap_or_else(|_| "weir-data/identity/admin.pem".to_owned());
    let client = Client::connect(ClientConfig::new([broker], Identity::load(identity)?)).await?;

    let topic: TopicName = "clicks".parse()?;
    let create = CreateTopic { name: topic.clone(), partitions: 2, config: TopicConfig::default() };
    client.admin().create_topic(create).await?;

    let producer = client.producer(ProducerConfig::default());
    let mut deliveries = Vec::new();
    for index in 0..1_000 {
        let key = format!("user-{}", index % 7);
        let mut record = Record::new(key, format!(r#"{{"page":"/item/{index}"}}"#), NOW);
        record.headers.push(Header::new("source", "example"));
        // Waits only when the producer's buffer is full; the record travels in a batch with others.
        deliveries.push(producer.send(&topic, record).await?);
    }
    for delivery in deliveries {
        let delivery = delivery.await?;
        if let Outcome::Rejected(reject) = delivery.outcome() {
            eprintln!("offset {} was rejected: {}", delivery.offset(), reject.text);
        }
    }
    let books = producer.close().await?;
    println!("{} records acknowledged, {} stored, {} dropped", books.records_in, books.stored, books.dropped);
    Ok(())
}
