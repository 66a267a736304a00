//! `neighbours`: how long others wait for their acknowledgement beside a hostile plugin.
//!
//! A broker in a process of its own, its data in memory where there is such a place: the disk is not the question. Two
//! neighbours produce small batches at a steady pace, one through a filter; beside them hostile topics, each with
//! a batch in hand all the time. Windows with and without the hostile ones take turns, and each is judged against the
//! other.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use client::{
    BatchBuilder, Client, ClientConfig, CreateTopic, Identity, Producer, ProducerConfig, TopicConfig, TopicPartition,
};
use protocol::{control::DeployTransform, limits::GUEST_DEADLINE_MS};
use server::{Server, ServerConfig};
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    Bench,
    engine::{Deploy, Engine, batch},
    figure::Target::AtMost,
    guests, native,
    process::Role,
    timing::thread_cpu,
};

/// A neighbour's pace, and its batches.
const PACE: Duration = Duration::from_millis(5);
const RECORDS: u32 = 100;
const VALUE_BYTES: usize = 100;
const NEEDLE: &str = "Googlebot";

const WINDOW: Duration = Duration::from_secs(3);

/// How long the hostile ones may go on with what they have in hand before the next window begins.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Of its deadline, what a plugin uses that stays just under it.
const JUST_UNDER: f64 = 0.8;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let endless = guests::spin(None);
    let just_under = guests::spin(Some(turns_just_under()?));
    let runtime = Runtime::new()?;
    for (name, wasm) in [("an endless loop", endless), ("just under its deadline", just_under)] {
        for count in [1, 8] {
            let town = runtime.block_on(Town::found(&wasm, count))?;
            let (quiet, loud) = runtime.block_on(town.watch(bench.full_or_quick(8, 2)))?;
            for (at, neighbour) in NEIGHBOURS.iter().enumerate() {
                tell(bench, &format!("{neighbour}, {count} x {name}"), count, &quiet[at], &loud[at]);
            }
        }
    }
    Ok(())
}

/// Beside one hostile plugin a few milliseconds are forgiven, whatever the ratio.
fn tell(bench: &mut Bench, name: &str, count: usize, quiet: &[Duration], loud: &[Duration]) {
    let (quiet, loud) = (p99(quiet).as_secs_f64() * 1e3, p99(loud).as_secs_f64() * 1e3);
    let (ratio, more, most) = (loud / quiet, loud - quiet, if count == 1 { 1.25 } else { 1.5 });
    let detail = format!("{loud:.2} ms, without {quiet:.2}; {ratio:.2} of it");
    if count == 1 && ratio > most {
        bench.report.figure(&format!("p99 of {name}"), more, "ms more", AtMost(5.0), &detail);
    } else {
        bench.report.figure(&format!("p99 of {name}"), ratio, "of without", AtMost(most), &detail);
    }
}

fn p99(waits: &[Duration]) -> Duration {
    let mut waits = waits.to_vec();
    waits.sort();
    waits[waits.len() * 99 / 100]
}

/// How many turns take the guest just under the default deadline, on this machine.
fn turns_just_under() -> Result<u64> {
    const TRIED: u64 = 100_000_000;
    let mut engine = Engine::new(&guests::spin(Some(TRIED)), Deploy::default())?;
    let batch = batch([b"0123456789".to_vec()]);
    let began = thread_cpu();
    drop(engine.run(&batch));
    let tried_ms = (thread_cpu() - began).as_secs_f64() * 1e3;
    Ok((f64::from(GUEST_DEADLINE_MS) * JUST_UNDER / tried_ms * TRIED as f64) as u64)
}

const NEIGHBOURS: [&str; 2] = ["a plain topic", "one with a filter"];

/// What each neighbour waited.
type Waits = [Vec<Duration>; NEIGHBOURS.len()];

/// A topic whose producer wants no more than its acknowledgements.
struct Neighbour {
    topic: TopicPartition,
    producer: Producer,
}

impl Neighbour {
    async fn settle(client: &Client, name: &str) -> Result<Neighbour> {
        let producer = client.producer(ProducerConfig::default());
        Ok(Neighbour { topic: topic(client, name).await?, producer })
    }
}

/// A broker, the neighbours' topics and the hostile ones.
struct Town {
    neighbours: [Neighbour; NEIGHBOURS.len()],
    hostiles: Hostiles,
    _broker: Child,
    _data_dir: tempfile::TempDir,
}

impl Town {
    async fn found(hostile: &[u8], count: usize) -> Result<Town> {
        let data_dir = data_dir()?;
        let (broker, client) = start_broker(data_dir.path()).await?;
        let admin = client.admin();
        admin.upload_plugin("contains".parse()?, guests::CONTAINS).await?;
        admin.upload_plugin("hostile".parse()?, hostile.to_vec()).await?;
        let neighbours = [Neighbour::settle(&client, "plain").await?, Neighbour::settle(&client, "filtered").await?];
        deploy(&client, &neighbours[1].topic, "contains", &format!("{{\"contains\":\"{NEEDLE}\"}}")).await?;
        let mut hostiles = Vec::new();
        for number in 0..count {
            let hostile = topic(&client, &format!("hostile-{number}")).await?;
            deploy(&client, &hostile, "hostile", "{}").await?;
            hostiles.push(hostile);
        }
        let hostiles = Hostiles::start(&client, hostiles);
        Ok(Town { neighbours, hostiles, _broker: broker, _data_dir: data_dir })
    }

    /// What the neighbours waited in windows without the hostile ones, and with them.
    async fn watch(&self, pairs: usize) -> Result<(Waits, Waits)> {
        // One that does not count: first growth, first touch.
        self.window().await?;
        let (mut quiet, mut loud) = (Waits::default(), Waits::default());
        for _ in 0..pairs {
            append(&mut quiet, self.window().await?);
            append(&mut loud, self.hostiles.beside(self.window()).await?);
        }
        Ok((quiet, loud))
    }

    /// What the neighbours wait in one window. The hostile ones stop at its end, and not when all is answered: else who
    /// has fallen behind would never catch up.
    async fn window(&self) -> Result<Waits> {
        let [one, other] = &self.neighbours;
        let (one, other) = tokio::try_join!(produce_paced(one), produce_paced(other))?;
        self.hostiles.stop();
        Ok([waited(one).await?, waited(other).await?])
    }
}

fn append(all: &mut Waits, more: Waits) {
    all.iter_mut().zip(more).for_each(|(all, more)| all.extend(more));
}

/// The wait for an answer, which goes on.
type Wait = JoinHandle<Result<Duration>>;

/// Sends a batch at each beat of a window, whatever became of the ones before.
async fn produce_paced(neighbour: &Neighbour) -> Result<Vec<Wait>> {
    let Neighbour { topic, producer } = neighbour;
    let mut beat = interval(PACE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut waits = Vec::new();
    let began = Instant::now();
    while began.elapsed() < WINDOW {
        let due = beat.tick().await;
        let handle = producer.send_batch(topic, small_batch(producer)).await?;
        waits.push(tokio::spawn(async move {
            handle.await?;
            Ok(due.elapsed())
        }));
    }
    Ok(waits)
}

/// How long each answer took.
async fn waited(waits: Vec<Wait>) -> Result<Vec<Duration>> {
    let mut waited = Vec::with_capacity(waits.len());
    for wait in waits {
        waited.push(wait.await??);
    }
    Ok(waited)
}

fn small_batch(producer: &Producer) -> BatchBuilder {
    let mut batch = producer.batch();
    for (delta, value) in (0..).zip(native::texts(RECORDS as usize, VALUE_BYTES, NEEDLE)) {
        let appended = batch.append_parts(delta, 1_700_000_000_000, None, Some(&value), std::iter::empty());
        appended.expect("a hundred small records fit");
    }
    batch
}

/// A program that sends to the hostile topics over one stream, a batch of one record at a time to each, while it is let.
struct Hostiles {
    go: Arc<AtomicBool>,
    in_hand: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Hostiles {
    fn start(client: &Client, topics: Vec<TopicPartition>) -> Hostiles {
        let (go, in_hand) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let producer = Arc::new(client.producer(ProducerConfig::default()));
        let start = |topic| tokio::spawn(harass(producer.clone(), topic, go.clone(), in_hand.clone()));
        let tasks = topics.into_iter().map(start).collect();
        Hostiles { go, in_hand, tasks }
    }

    /// Lets them go while `work` is done, or until it says [`Hostiles::stop`].
    async fn beside<R>(&self, work: impl Future<Output = Result<R>>) -> Result<R> {
        self.go.store(true, SeqCst);
        // Their first batches are on their way.
        sleep(Duration::from_millis(200)).await;
        let done = work.await?;
        self.drained().await?;
        Ok(done)
    }

    fn stop(&self) {
        self.go.store(false, SeqCst);
    }

    /// Waits until the broker is done with what they sent.
    async fn drained(&self) -> Result<()> {
        let drained = async {
            while self.in_hand.load(SeqCst) > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DRAIN_MAX, drained).await.context("the hostile batches do not end")
    }
}

impl Drop for Hostiles {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn harass(producer: Arc<Producer>, to: TopicPartition, go: Arc<AtomicBool>, in_hand: Arc<AtomicUsize>) {
    loop {
        if !go.load(SeqCst) {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        in_hand.fetch_add(1, SeqCst);
        let mut batch = producer.batch();
        batch.append_parts(0, 1_700_000_000_000, None, Some(b"!"), std::iter::empty()).expect("one record fits");
        if let Ok(handle) = producer.send_batch(&to, batch).await {
            // Whatever became of it: a broker that refuses more of a plugin that does nothing but fail does well.
            let _refused_or_done = handle.await;
        }
        in_hand.fetch_sub(1, SeqCst);
    }
}

async fn topic(client: &Client, name: &str) -> Result<TopicPartition> {
    let create = CreateTopic { name: name.parse()?, partitions: 1, config: TopicConfig::default() };
    let topic = client.admin().create_topic(create).await?.name;
    Ok(TopicPartition { topic, partition: 0 })
}

async fn deploy(client: &Client, on: &TopicPartition, plugin: &str, config: &str) -> Result<()> {
    let deploy = DeployTransform::new(on.topic.clone(), plugin.parse()?);
    let deploy = DeployTransform { config: config.to_owned(), ..deploy };
    client.admin().deploy_transform(deploy).await?;
    Ok(())
}

/// In memory, where the system has a place for that.
fn data_dir() -> Result<tempfile::TempDir> {
    let in_memory = Path::new("/dev/shm");
    let dir = if in_memory.is_dir() { in_memory.to_owned() } else { env!("CARGO_TARGET_TMPDIR").into() };
    Ok(tempfile::tempdir_in(dir)?)
}

/// Starts a broker and connects to it.
async fn start_broker(data_dir: &Path) -> Result<(Child, Client)> {
    let mut broker = Role::Serve { dir: data_dir.to_owned() }.start()?;
    let mut said = BufReader::new(broker.stdout.take().context("it has an output")?).lines();
    let mut line = || said.next().context("the broker does not start")?.context("the broker is not heard");
    let (address, identity): (String, PathBuf) = (line()?, line()?.into());
    let config = ClientConfig::new([address], Identity::load(identity)?);
    Ok((broker, Client::connect(config).await?))
}

/// The broker: says where it is and goes on until the process that started it is gone.
pub(crate) fn serve(dir: &Path) -> Result<()> {
    let runtime = Runtime::new()?;
    let mut config = ServerConfig { data_dir: dir.to_owned(), ..ServerConfig::default() };
    config.quic.set_port(0);
    config.runtime.announce = false;
    let server = runtime.block_on(Server::start(config))?;
    println!("{}\n{}", server.quic_addr(), server.identity_path().display());
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
