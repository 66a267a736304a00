//! What happens at the same time: topics that route to each other, transforms replaced under load, a guest that loops.

mod common;

use std::collections::BTreeMap;

use common::{
    KEEP, LONG, VERDICTS, batch, deploy, open, partition, plugin_name, produced, topic, topic_name, upload, values,
};
use protocol::{Books, LimitChanges, Offset, control::DeployTransform};
use tokio::{task::JoinSet, time::timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_route_to_each_other_go_on_and_lose_nothing() {
    const BATCHES: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for name in ["a", "b"] {
        topic(&broker, name, 2).await;
    }
    upload(&broker, "verdicts", VERDICTS).await;
    for (from, to) in [("a", "b"), ("b", "a")] {
        let targets = vec![topic_name(to)];
        broker.deploy_transform(DeployTransform { targets, ..deploy(from, "verdicts") }).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for (producer, (name, number)) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)].into_iter().enumerate() {
        let partition = partition(&broker, name, number);
        tasks.spawn(async move {
            let send = |sequence: u32| {
                let own = [format!("k {name}{number} {sequence}"), format!("r {name}{number} {sequence}")];
                partition.produce(produced(&own, producer as u64, 0, sequence * 2))
            };
            let tickets: Vec<_> = (0..BATCHES).map(send).collect();
            let mut books = Books::default();
            for ticket in tickets {
                books.add(&ticket.await.unwrap().books);
            }
            books
        });
    }
    let all = timeout(LONG, tasks.join_all()).await.expect("nobody waits for ever");
    for books in all {
        let sent = u64::from(BATCHES) * 2;
        assert_eq!(books, Books { records_in: sent, kept: sent, stored: sent, ..Books::default() });
    }
    for (name, other) in [("a", "b"), ("b", "a")] {
        for number in 0..2 {
            let mut by_kind: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for value in values(&partition(&broker, name, number)).await {
                let (kind, sequence) = value.rsplit_once(' ').unwrap();
                by_kind.entry(kind.to_owned()).or_default().push(sequence.parse().unwrap());
            }
            let kinds: Vec<_> = by_kind.keys().cloned().collect();
            assert_eq!(kinds, [format!("k {name}{number}"), format!("r {other}{number}")]);
            for (kind, sequences) in by_kind {
                assert!(sequences.into_iter().eq(0..BATCHES), "{kind} arrived once and in order");
            }
        }
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_a_transform_under_load_loses_and_doubles_nothing() {
    const BATCHES: u32 = 200;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "p", VERDICTS).await;
    upload(&broker, "q", KEEP).await;
    let load = {
        let clicks = clicks.clone();
        tokio::spawn(async move {
            for sequence in 0..BATCHES {
                let twins = [clicks.produce(produced(&[format!("k{sequence}")], 1, 0, sequence)), {
                    clicks.produce(produced(&[format!("k{sequence}")], 1, 0, sequence))
                }];
                let [first, second] = twins;
                assert_eq!(first.await.unwrap(), second.await.unwrap());
            }
        })
    };
    for round in 0..10 {
        let plugin = plugin_name(if round % 2 == 0 { "p" } else { "q" });
        let name = Some(common::transform_name("t"));
        broker.deploy_transform(DeployTransform { plugin, name, ..deploy("clicks", "p") }).await.unwrap();
        if round % 5 == 4 {
            broker.remove_transform(topic_name("clicks"), common::transform_name("t")).await.unwrap();
        }
    }
    load.await.unwrap();
    let expected: Vec<String> = (0..BATCHES).map(|sequence| format!("k{sequence}")).collect();
    assert_eq!(values(&clicks).await, expected);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_loops_leaves_the_topics_beside_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let looping = topic(&broker, "looping", 2).await;
    let plain = topic(&broker, "plain", 1).await.remove(0);
    let piped = topic(&broker, "piped", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    // CPU time: long beside what the other topics need, however busy the machine is.
    let deadline_ms = Some(1_500);
    let limits = LimitChanges { deadline_ms, record_deadline_ms: deadline_ms, ..LimitChanges::default() };
    broker.deploy_transform(DeployTransform { limits, ..deploy("looping", "verdicts") }).await.unwrap();
    broker.deploy_transform(deploy("piped", "verdicts")).await.unwrap();

    let mut stuck: JoinSet<_> = looping.iter().map(|partition| partition.produce(batch(&["l"]))).collect();
    for number in 0..20 {
        let value = format!("k{number}");
        plain.produce(batch(&[&value])).await.unwrap();
        piped.produce(batch(&[&value])).await.unwrap();
    }
    assert!(stuck.try_join_next().is_none(), "the guest still loops while others were served");
    assert_eq!(values(&piped).await.len(), 20);
    while let Some(answer) = stuck.join_next().await {
        let books = answer.unwrap().unwrap().books;
        assert_eq!(books, Books { records_in: 1, dead_lettered: 1, ..Books::default() });
    }
    looping[0].produce(batch(&["k"])).await.unwrap();
    assert_eq!(common::read(&looping[0]).await[0].0, Offset(1));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_deleted_under_load_answers_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    upload(&broker, "verdicts", VERDICTS).await;
    for round in 0..5 {
        let clicks = topic(&broker, "clicks", 1).await.remove(0);
        if round % 2 == 0 {
            broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
        }
        let tickets: Vec<_> = (0..100).map(|number| clicks.produce(produced(&["k"], 1, 0, number))).collect();
        let deleted = tokio::spawn({
            let broker = broker.clone();
            async move { broker.delete_topic(topic_name("clicks")).await }
        });
        let mut refused = false;
        for ticket in tickets {
            match timeout(LONG, ticket).await.expect("everybody is answered") {
                Ok(_) => assert!(!refused, "what was taken was taken in order"),
                Err(_) => refused = true,
            }
        }
        deleted.await.unwrap().unwrap();
    }
    broker.shutdown().await;
}
