//! After the storm: the broker serves again, everybody is answered, and the whole log is read.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::{Assignment, Client, Consumer, ConsumerConfig, Offset, OffsetSpec, TopicPartition, Until};
use sim::checker::history::{Seen, What};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{payload, world::World};

/// How long clients may take to come to their end once the broker serves again.
const SETTLE_DURATION_MAX: Duration = Duration::from_secs(60);

/// Retention may move the log's start while it is read; then it is read again.
const READS_MAX: usize = 20;

/// Waits until every client has come to its end.
pub(crate) fn join(runtime: &Runtime, mut clients: JoinSet<()>) -> anyhow::Result<()> {
    let all = async {
        while let Some(done) = clients.join_next().await {
            done?;
        }
        anyhow::Ok(())
    };
    let ended = runtime.block_on(async { tokio::time::timeout(SETTLE_DURATION_MAX, all).await });
    ended.context("everything is healed, and a client is not answered")?
}

/// Reads everything that is there.
pub(crate) fn read_all(runtime: &Runtime, world: &World) -> anyhow::Result<()> {
    runtime.block_on(async {
        let client = world.connect_patiently().await?;
        let reader = world.next_client();
        for (index, partition) in world.partitions().iter().enumerate() {
            let parts = read_partition(&client, partition).await.with_context(|| format!("`{partition}`"))?;
            for (from, next_offset, records) in parts {
                world.note(reader, What::Final { partition: index as u32, from, next_offset, records });
            }
        }
        Ok(())
    })
}

type Part = (u64, u64, Vec<Seen>);

async fn read_partition(client: &Client, partition: &TopicPartition) -> anyhow::Result<Vec<Part>> {
    for _ in 1..READS_MAX {
        if let Ok(parts) = read_once(client, partition).await {
            return Ok(parts);
        }
    }
    read_once(client, partition).await
}

async fn read_once(client: &Client, partition: &TopicPartition) -> anyhow::Result<Vec<Part>> {
    let admin = client.admin();
    let start = admin.find_offset(partition, OffsetSpec::Beginning).await?;
    let from = OffsetSpec::At(start);
    let assignment = Assignment { topic: partition.topic.clone(), partition: partition.partition, from };
    let mut consumer: Consumer =
        client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([assignment]) });
    let (mut parts, mut place) = (Vec::new(), start.0);
    while let Some(batch) = consumer.next_batch().await {
        let batch = batch?;
        let seen = |record: client::RecordRef<'_>| Seen {
            offset: record.offset.0,
            record: record.value.and_then(payload::decode),
        };
        parts.push((place, batch.next_offset().0, batch.records().map(seen).collect()));
        place = batch.next_offset().0;
    }
    let Offset(end) = consumer.position(partition).context("the reader was nowhere")?;
    parts.push((place, end, Vec::new()));
    ensure!(admin.find_offset(partition, OffsetSpec::Beginning).await? == start, "the log's start moved");
    Ok(parts)
}
