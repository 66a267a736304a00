//! What a hostile transform may take from others, and how an operator bounds it while it runs.

mod common;

use std::{sync::Arc, time::Duration};

use broker::{Broker, BrokerOptions, DeployError, Partition, ProduceError};
use common::{LONG, VERDICTS, batch, deploy, open, produced, topic, topic_name, transform_name, upload, values};
use protocol::{
    Books, BreakerPolicy, Isolation, LimitChanges, OnError, RecordBatch, TransformDescription,
    control::{AlterTransform, DeployTransform},
    limits::PIPELINE_QUEUE_BYTES_MAX,
};
use tokio::{task::JoinSet, time::timeout};

/// With as many workers as a broker has by default.
fn open_whole(dir: &std::path::Path) -> Broker {
    Broker::open(BrokerOptions::new(dir)).unwrap()
}

/// CPU time that is long beside what anything else here takes.
fn slow(deadline_ms: u32) -> LimitChanges {
    let deadline_ms = Some(deadline_ms);
    LimitChanges { deadline_ms, record_deadline_ms: deadline_ms, ..LimitChanges::default() }
}

async fn described(broker: &Broker, topic: &str) -> TransformDescription {
    broker.list_transforms(Some(&topic_name(topic))).unwrap().remove(0)
}

fn alter(topic: &str) -> AlterTransform {
    AlterTransform::new(topic_name(topic), transform_name("verdicts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_topics_that_loop_leave_the_ninth_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_whole(dir.path());
    upload(&broker, "verdicts", VERDICTS).await;
    let mut stuck = JoinSet::new();
    for number in 0..8 {
        let name = format!("looping-{number}");
        let looping = topic(&broker, &name, 1).await.remove(0);
        broker.deploy_transform(DeployTransform { limits: slow(1_000), ..deploy(&name, "verdicts") }).await.unwrap();
        stuck.spawn(looping.produce(batch(&["l"])));
    }
    let piped = topic(&broker, "piped", 1).await.remove(0);
    broker.deploy_transform(deploy("piped", "verdicts")).await.unwrap();
    for number in 0..20 {
        piped.produce(batch(&[&format!("k{number}")])).await.unwrap();
    }
    assert!(stuck.try_join_next().is_none(), "a guest's deadline was waited for");
    // With a deadline that lets them end, they do.
    while let Some(answer) = stuck.join_next().await {
        assert_eq!(answer.unwrap().unwrap().books, Books { records_in: 1, dead_lettered: 1, ..Books::default() });
    }
    broker.shutdown().await;
}

/// One record of this size, kept by the transform.
fn large(bytes: usize) -> RecordBatch {
    batch(&[&"k".repeat(bytes)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_its_own_partition_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_whole(dir.path());
    upload(&broker, "verdicts", VERDICTS).await;
    let slow_topic = topic(&broker, "slow", 1).await.remove(0);
    let beside = topic(&broker, "beside", 1).await.remove(0);
    let plain = topic(&broker, "plain", 1).await.remove(0);
    broker.deploy_transform(DeployTransform { limits: slow(3_000), ..deploy("slow", "verdicts") }).await.unwrap();
    broker.deploy_transform(deploy("beside", "verdicts")).await.unwrap();

    let stuck = slow_topic.produce(batch(&["l"]));
    const BATCH: usize = 900 << 10;
    let mut taken = Vec::new();
    let refused = loop {
        let mut ticket = Box::pin(slow_topic.produce(large(BATCH)));
        // A refusal comes at once; what is taken waits for the guest before it.
        match timeout(Duration::from_millis(50), &mut ticket).await {
            Ok(refused) => break refused.unwrap_err(),
            Err(_) => taken.push(ticket),
        }
        assert!(taken.len() * BATCH <= PIPELINE_QUEUE_BYTES_MAX, "there is no bound");
    };
    assert!(matches!(&refused, ProduceError::TransformBusy { .. }) && refused.is_retriable(), "{refused}");
    assert!(refused.to_string().contains("`pipeline_queue_bytes_max`"), "{refused}");
    let half = PIPELINE_QUEUE_BYTES_MAX / 2 / BATCH;
    assert!((half - 1..=half + 1).contains(&taken.len()), "{} batches", taken.len());

    // As large, on other partitions.
    beside.produce(large(BATCH)).await.unwrap();
    plain.produce(large(BATCH)).await.unwrap();
    stuck.await.unwrap();
    for ticket in taken {
        assert_eq!(ticket.await.unwrap().books.kept, 1, "what was taken is stored");
    }
    slow_topic.produce(large(BATCH)).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn limits_change_while_it_runs_and_last() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    upload(&broker, "verdicts", VERDICTS).await;
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
    clicks.produce(batch(&["k", "k"])).await.unwrap();

    let limits = LimitChanges { record_deadline_ms: Some(20), memory_bytes: Some(32 << 20), ..LimitChanges::default() };
    let (isolation, on_error) = (Some(Isolation::Fresh), Some(OnError::Drop));
    let change = AlterTransform { limits, isolation, on_error, ..alter("clicks") };
    let altered = broker.alter_transform(change.clone()).await.unwrap();
    assert_eq!(altered.spec, change.apply(described(&broker, "clicks").await.spec));
    assert_eq!((altered.spec.limits.record_deadline_ms, altered.spec.limits.deadline_ms), (20, 1_000));
    assert_eq!(altered.stats.records_in, 2, "counted on");
    // The next batch meets it: dropped, not a dead letter, after 20 ms of CPU time.
    let answer = clicks.produce(batch(&["l", "k"])).await.unwrap();
    assert_eq!(answer.books, Books { records_in: 2, kept: 1, stored: 1, dropped: 1, ..Books::default() });
    let found = described(&broker, "clicks").await;
    assert_eq!((found.usage.instances, found.stats.records_in), (0, 4));
    assert!(found.stats.deadline_hits > 0);

    let impossible = LimitChanges { stack_bytes: Some(3), ..LimitChanges::default() };
    let error = broker.alter_transform(AlterTransform { limits: impossible, ..alter("clicks") }).await.unwrap_err();
    assert!(matches!(error, DeployError::Refused(_)), "{error}");
    assert_eq!(described(&broker, "clicks").await.spec, altered.spec, "a refused change changes nothing");
    broker.shutdown().await;
    drop((broker, clicks));

    let broker = open(dir.path());
    assert_eq!(described(&broker, "clicks").await.spec, altered.spec);
    broker.shutdown().await;
}

/// Fails as often as it takes to open the breaker.
async fn trip(broker: &Broker, clicks: &Arc<Partition>, topic: &str) {
    for _ in 0..described(broker, topic).await.spec.limits.breaker_batches {
        clicks.produce(batch(&["t", "t"])).await.unwrap();
    }
    assert_eq!(described(broker, topic).await.stats.trips, 1);
}

#[tokio::test]
async fn an_open_breaker_pauses_until_an_operator_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    upload(&broker, "verdicts", VERDICTS).await;
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    let transform = broker
        .deploy_transform(DeployTransform { on_error: OnError::Drop, ..deploy("clicks", "verdicts") })
        .await
        .unwrap();
    assert_eq!(transform.spec.breaker, BreakerPolicy::Pause, "nothing is lost or taken unseen");
    assert!(broker.describe_topics(&[topic_name("clicks.dlq")]).is_err(), "nobody writes there");
    trip(&broker, &clicks, "clicks").await;

    let refused = clicks.produce(produced(&["k"], 7, 0, 0)).await.unwrap_err();
    assert!(refused.is_retriable() && refused.to_string().contains("breaker is open"), "{refused}");
    assert!(described(&broker, "clicks").await.usage.breaker.is_some());
    let resumed = broker.resume_transform(topic_name("clicks"), transform_name("verdicts")).await.unwrap();
    assert_eq!(resumed.usage.breaker, None);
    clicks.produce(produced(&["k"], 7, 0, 0)).await.unwrap();
    assert_eq!(values(&clicks).await, ["k"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn an_open_breaker_heals_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    upload(&broker, "verdicts", VERDICTS).await;
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
    trip(&broker, &clicks, "clicks").await;
    let kept_out = clicks.produce(batch(&["k", "k"])).await.unwrap();
    assert_eq!(kept_out.books.dead_lettered, 2);
    let healed = async {
        while clicks.produce(batch(&["k"])).await.unwrap().books.kept == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, healed).await.expect("one batch is let through after a while");
    let found = described(&broker, "clicks").await;
    assert_eq!(found.usage.breaker, None);
    assert!(found.stats.bypassed >= 2);
    broker.shutdown().await;
}
