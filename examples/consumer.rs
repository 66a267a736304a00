//! Reads a topic from its beginning to its end; without `until` it would go on with what comes later.
//!
//! After the producer example: `cargo run --example consumer`. Another broker than the one in this folder is named by
//! `WEIR_BROKER` and `WEIR_IDENTITY`.

use std::env;

use anyhow::Result;
use client::{Assignment, Client, ClientConfig, ConsumerConfig, Identity, OffsetSpec, TopicName, Until};

#[tokio::main]
async fn main() -> Result<()> {
    let broker = env::var("WEIR_BROKER").unwrap_or_else(|_| "127.0.0.1:7433".to_owned());
    let identity = env::var("WEIR_IDENTITY").unwrap_or_else(|_| "weir-data/identity/admin.pem".to_owned());
    let client = Client::connect(ClientConfig::new([broker], Identity::load(identity)?)).await?;

    let topic: TopicName = "clicks".parse()?;
    let partitions = client.admin().topic(&topic).await?.partitions.len() as u32;
    let assignments =
        (0..partitions).map(|partition| Assignment { topic: topic.clone(), partition, from: OffsetSpec::Beginning });
    let mut consumer = client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new(assignments) });

    let mut count = 0;
    while let Some(record) = consumer.next().await {
        let record = record?;
        let text = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
        if count < 10 {
            let (key, value) = (text(record.key.as_deref()), text(record.value.as_deref()));
            println!("{} offset {}: {key} {value}", record.partition, record.offset);
        }
        count += 1;
    }
    println!("{count} records read");
    Ok(())
}
