//! Every attack of the engine's catalogue, and modules that are heavy to compile, against a real broker: uploaded,
//! deployed and fed through the client's SDK, one after the other, while a neighbour topic with a good transform is
//! produced to and read. The broker stays the same process, each attack ends as a user is told, memory comes back, and
//! every record of the neighbour is acknowledged once and is as its transform makes it.
//!
//! `cargo test -p weir-cli --test attacks -- --nocapture` prints what each came to and how long it took.

#[path = "../../../transform/tests/attacks/catalogue/mod.rs"]
mod catalogue;
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod heavy;
mod neighbour;

use std::time::Duration;

use catalogue::{Attack, End};
use client::{
    Admin, AdminError, Assignment, Client, ClientConfig, ConsumedRecord, ConsumerConfig, CreateTopic, DeployTransform,
    Identity, LimitChanges, NOW, OffsetSpec, ProducerConfig, Record, TopicConfig, TopicName, TransformLimits, Until,
};
use common::{Broker, Place};
use neighbour::Neighbour;

/// What the broker's allocator, its caches and its logs may keep after all attacks.
const FORGIVEN_BYTES: u64 = 192 << 20;

/// How long a broker has to give memory back that nobody uses any more.
const SETTLE_SECONDS: u32 = 20;

#[test]
fn a_broker_outlives_every_attack_and_serves_its_neighbour() {
    let place = Place::new();
    let broker = place.serve_with_log();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = connect(&place, &broker).await;
        let neighbour = Neighbour::start(connect(&place, &broker).await).await;
        let before = resident_bytes(&broker);
        let mut succeeded = Vec::new();
        for (index, attack) in catalogue::all().iter().enumerate() {
            let watch = clock::now();
            let came_to = run(&client, attack, &format!("attack-{index}")).await;
            let verdict = came_to.unwrap_or_else(|wrong| {
                succeeded.push(format!("{}: {wrong}", attack.name));
                format!("SUCCEEDED: {wrong}")
            });
            tell(&format!("{:?}", attack.class), attack.name, watch.elapsed(), &verdict);
        }
        for (index, (name, wasm)) in heavy::all().into_iter().enumerate() {
            let watch = clock::now();
            let verdict = upload_heavy(&client.admin(), &format!("heavy-{index}"), wasm).await;
            tell("heavy", name, watch.elapsed(), &verdict);
        }
        assert_is_back(&broker, before).await;
        println!("the neighbour: {}", neighbour.finish().await);
        assert!(succeeded.is_empty(), "attacks that succeeded: {succeeded:#?}");
    });
    // The process that was started is the one that served to the end.
    assert_eq!(broker.terminate(), 0, "it ends as it was asked to");
}

fn tell(class: &str, name: &str, wall: Duration, verdict: &str) {
    println!("{class:<12} {name:<62} {:>6} ms  {verdict:.120}", wall.as_millis());
}

async fn connect(place: &Place, broker: &Broker) -> Client {
    let identity = Identity::load(place.data_dir().join("identity/admin.pem")).unwrap();
    Client::connect(ClientConfig::new([broker.quic.to_string()], identity)).await.unwrap()
}

/// Carries out one attack: what it came to, or what it should not have.
async fn run(client: &Client, attack: &Attack, id: &str) -> Result<String, String> {
    let admin = client.admin();
    let uploaded = admin.upload_plugin(id.parse().unwrap(), attack.wasm.clone()).await;
    match (uploaded, &attack.end) {
        (Err(error), End::Refused(_, words)) => {
            let text = text_of(&error);
            let is_typed = error.code().is_some() || matches!(error, AdminError::PluginTooLarge { .. });
            // What the client refuses by itself names the same limit in its own words.
            let is_told = text.contains(words) || error.code().is_none();
            return if is_typed && is_told { Ok(text) } else { Err(format!("`{words}` is not in `{text}`")) };
        }
        (Err(error), _) => return Err(format!("was refused: {}", text_of(&error))),
        (Ok(_), End::Refused(..)) => return Err("was taken".to_owned()),
        (Ok(_), _) => {}
    }
    let topic = create_topic(&admin, id).await;
    let deployed = deploy(&admin, &topic, id, Some(attack.limits)).await;
    let came_to = match (deployed, &attack.end) {
        (Err(error), End::NotDeployed(_)) if text_of(&error).contains("`deadline_ms`") => Ok(text_of(&error)),
        (Err(error), _) => Err(format!("was not deployed: {}", text_of(&error))),
        (Ok(()), End::Fails(failed)) => feed(client, attack, &topic, failed).await,
        (Ok(()), _) => Err("was deployed".to_owned()),
    };
    admin.delete_topic(&topic).await.unwrap();
    admin.delete_plugin(&id.parse().unwrap()).await.unwrap();
    came_to
}

/// Gives the attack its batches, and compares what is stored and what is dead with what must be.
async fn feed(client: &Client, attack: &Attack, topic: &TopicName, failed: &[(u32, u16)]) -> Result<String, String> {
    let count = attack.records.len();
    let config = ProducerConfig {
        // A batch goes when it is whole.
        batch_records: count as u32,
        linger: Duration::from_secs(5),
        ..ProducerConfig::default()
    };
    let producer = client.producer(config);
    for _ in 0..attack.batches {
        let mut deliveries = Vec::new();
        for value in &attack.records {
            deliveries.push(producer.send(topic, Record::unkeyed(value.clone(), NOW)).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.map_err(|error| text_of(&error))?;
        }
    }
    let expected = failed.len() * attack.batches as usize;
    let stored = read(client, topic).await.len();
    let dead = match expected {
        0 => Vec::new(),
        _ => read(client, &format!("{topic}.dlq").parse().unwrap()).await,
    };
    let codes: Vec<u16> = dead.iter().map(|letter| header(letter, "weir.dlq.code").parse().unwrap()).collect();
    let expected_codes: Vec<u16> = failed.iter().map(|(_, code)| *code).collect();
    let said = dead.first().map_or_else(|| "kept".to_owned(), |letter| header(letter, "weir.dlq.text"));
    if stored != count * attack.batches as usize - expected {
        return Err(format!("{stored} records are stored: {said}"));
    }
    match codes.chunks(failed.len().max(1)).all(|batch| batch == expected_codes) && codes.len() == expected {
        true => Ok(said),
        false => Err(format!("failed with {codes:x?}, not {expected_codes:x?}: {said}")),
    }
}

async fn upload_heavy(admin: &Admin, id: &str, wasm: Vec<u8>) -> String {
    match admin.upload_plugin(id.parse().unwrap(), wasm).await {
        Ok(_) => "compiled".to_owned(),
        Err(error) => {
            let text = text_of(&error);
            assert!(error.code().is_some(), "{text}");
            text
        }
    }
}

pub(crate) async fn create_topic(admin: &Admin, name: &str) -> TopicName {
    let topic: TopicName = name.parse().unwrap();
    let create = CreateTopic { name: topic.clone(), partitions: 1, config: TopicConfig::default() };
    admin.create_topic(create).await.unwrap();
    topic
}

pub(crate) async fn deploy(
    admin: &Admin,
    topic: &TopicName,
    plugin: &str,
    limits: Option<TransformLimits>,
) -> Result<(), AdminError> {
    let limits = limits.map_or_else(LimitChanges::default, |limits| LimitChanges {
        memory_bytes: Some(limits.memory_bytes),
        deadline_ms: Some(limits.deadline_ms),
        record_deadline_ms: Some(limits.record_deadline_ms),
        failure_ms: Some(limits.failure_ms),
        ..LimitChanges::default()
    });
    let transform = DeployTransform { limits, ..DeployTransform::new(topic.clone(), plugin.parse().unwrap()) };
    admin.deploy_transform(transform).await.map(drop)
}

/// All records of a topic.
pub(crate) async fn read(client: &Client, topic: &TopicName) -> Vec<ConsumedRecord> {
    let from = Assignment { topic: topic.clone(), partition: 0, from: OffsetSpec::Beginning };
    let mut consumer = client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([from]) });
    let mut records = Vec::new();
    while let Some(record) = consumer.next().await {
        records.push(record.unwrap());
    }
    records
}

fn header(record: &ConsumedRecord, name: &str) -> String {
    let header = record.headers.iter().find(|header| header.name == name);
    let value = header.and_then(|header| header.value.clone()).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

/// An error with its causes.
fn text_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Resident memory of the broker; 0 where the system does not tell.
fn resident_bytes(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

async fn assert_is_back(broker: &Broker, before: u64) {
    let mut after = resident_bytes(broker);
    for _ in 0..SETTLE_SECONDS {
        if after <= before + FORGIVEN_BYTES {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        after = resident_bytes(broker);
    }
    println!("resident before: {} MiB, after: {} MiB", before >> 20, after >> 20);
    assert!(after <= before + FORGIVEN_BYTES, "{} MiB, before it were {}", after >> 20, before >> 20);
}
