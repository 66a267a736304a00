//! Sends the records and reads back what is left of them, at the same time, as two programs would.
//!
//! Owns the counting. What is read back is checked as it comes: offsets ascend, so nothing comes twice.
//!
//! Start at [`run`].

use std::time::Duration;

use client::{Client, Offset, Producer, ProducerConfig, Record, TopicName};
use protocol::{Books, TransformDescription};
use tokio::task::JoinHandle;

use super::{
    plan::Plan,
    reading::{Read, Reading},
    screen::{Row, Screen},
    source::{Origin, Source},
};
use crate::{
    clock::{self, Stopwatch},
    exit::{Exit, Failure},
    human,
};

/// How often is looked at what has happened.
const LOOK_EVERY: Duration = Duration::from_millis(70);

/// Looks without any news after which the rest is given up: about a minute.
const LOOKS_IN_VAIN_MAX: u32 = 900;

/// What came of it.
#[derive(Debug)]
pub(super) struct Flowed {
    pub(super) books: Books,
    /// From the first record sent to the last one acknowledged.
    pub(super) sending: Duration,
    pub(super) stored: Read,
    pub(super) dead_letters: Read,
    /// Offset of the first record that was sent.
    pub(super) first_offset: Option<Offset>,
}

/// Records on their way, and those that came back.
struct Flow {
    client: Client,
    topic: TopicName,
    total: u64,
    has_mask: bool,
    producer: Producer,
    sending: JoinHandle<anyhow::Result<Sent>>,
    stored: Reading,
    dead_letters: Reading,
    watch: Stopwatch,
}

struct Sent {
    first_offset: Option<Offset>,
    elapsed: Duration,
}

/// Sends all of `origin` to the plan's topic and reads until everything that is stored came back.
pub(super) async fn run(
    client: &Client,
    plan: &Plan,
    origin: &Origin,
    total: u64,
    screen: &mut Screen<'_>,
) -> anyhow::Result<Flowed> {
    let dead_letter_topic = plan.dead_letter_topic();
    let stored = Reading::start(client, &plan.topic, plan.tell_by).await?;
    let dead_letters = Reading::start(client, &dead_letter_topic, plan.tell_by).await?;
    let producer = client.producer(ProducerConfig::default());
    let sending = send(origin.open()?, producer.clone(), plan.topic.clone());
    let flow = Flow {
        client: client.clone(),
        topic: plan.topic.clone(),
        total,
        has_mask: plan.stages.iter().any(super::plan::Stage::masks),
        producer,
        watch: Stopwatch::start(),
        sending: tokio::spawn(sending),
        stored,
        dead_letters,
    };
    flow.follow(screen).await
}

/// Sends every line as a record and waits until all are acknowledged.
async fn send(mut source: Source, producer: Producer, topic: TopicName) -> anyhow::Result<Sent> {
    let watch = Stopwatch::start();
    let (mut line, mut first) = (Vec::new(), None);
    while source.next(&mut line)? {
        let record = Record::unkeyed(line.clone(), clock::now_ms());
        let delivery = producer.send(&topic, record).await?;
        first.get_or_insert(delivery);
    }
    producer.flush().await?;
    let elapsed = watch.elapsed();
    let first_offset = match first {
        Some(delivery) => Some(delivery.await?.offset()),
        None => None,
    };
    Ok(Sent { first_offset, elapsed })
}

impl Flow {
    /// Watches until all is sent and read back, and shows it meanwhile.
    async fn follow(mut self, screen: &mut Screen<'_>) -> anyhow::Result<Flowed> {
        let mut plain = Plain::default();
        let (mut seen, mut in_vain) = (0, 0);
        while !self.is_over() {
            tokio::time::sleep(LOOK_EVERY).await;
            self.stored.check().await?;
            self.dead_letters.check().await?;
            if screen.shows_live() {
                let rows: Vec<Row> = self.rows().into_iter().chain(self.stage_rows().await?).collect();
                screen.live(&rows);
            }
            plain.tell(self.producer.books().records_in, self.total, screen)?;
            let now = self.progress();
            in_vain = if now == seen { in_vain + 1 } else { 0 };
            seen = now;
            if in_vain == LOOKS_IN_VAIN_MAX {
                let advice = "run it again with `WEIR_LOG=info`; it is a fault of weir if it stays";
                return Err(Failure::new(Exit::Failed, "nothing came any more", advice).into());
            }
        }
        screen.settle(&self.rows())?;
        let sent = (&mut self.sending).await??;
        Ok(Flowed {
            books: self.producer.books(),
            sending: sent.elapsed,
            first_offset: sent.first_offset,
            stored: self.stored.finish(),
            dead_letters: self.dead_letters.finish(),
        })
    }

    /// Whether everything sent is answered, and everything stored was read. A sender that failed is over too.
    fn is_over(&self) -> bool {
        let books = self.producer.books();
        let answered = self.sending.is_finished();
        answered && self.stored.count() >= books.stored && self.dead_letters.count() >= books.dead_lettered
    }

    /// Grows as long as anything happens.
    fn progress(&self) -> u64 {
        let books = self.producer.books();
        books.records_in + self.stored.count() + self.dead_letters.count()
    }

    fn rows(&self) -> Vec<Row> {
        let books = self.producer.books();
        let rate = books.records_in as f64 / self.watch.elapsed().as_secs_f64().max(0.001);
        let rate = if self.sending.is_finished() { String::new() } else { format!("{}/s", human::count(rate as u64)) };
        let row =
            |label: &str, count| Row { label: label.to_owned(), count, of: books.records_in, note: String::new() };
        let mut rows = vec![
            Row { of: self.total, note: rate, ..row("in", books.records_in) },
            row("dropped", books.dropped),
            row("dead-lettered", books.dead_lettered),
            row("stored", books.stored),
        ];
        if self.has_mask {
            // The mask is on every record's way that is stored.
            rows.push(row("masked", books.stored));
        }
        rows.push(row("read back", self.stored.count()));
        rows
    }

    /// What each transform has seen, and what it takes for a record.
    async fn stage_rows(&self) -> anyhow::Result<Vec<Row>> {
        let records_in = self.producer.books().records_in;
        let transforms = self.client.admin().transforms(Some(&self.topic)).await?;
        let row = |transform: &TransformDescription| {
            let stats = transform.stats;
            let note = stats.ns.checked_div(stats.records_in).map(|ns| format!("{} ns", human::count(ns)));
            let label = transform.spec.name.to_string();
            Row { label, count: stats.records_in, of: records_in.max(stats.records_in), note: note.unwrap_or_default() }
        };
        Ok(transforms.iter().map(row).collect())
    }
}

/// Progress where there is no terminal: a line at every quarter.
#[derive(Debug, Default)]
struct Plain {
    quarters: u64,
}

impl Plain {
    fn tell(&mut self, records_in: u64, total: u64, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let quarters = (records_in * 4).checked_div(total).unwrap_or(0);
        if quarters > self.quarters && !screen.shows_live() {
            self.quarters = quarters;
            let text = format!("  {} of {} in", human::count(records_in), human::count(total));
            screen.line(&text)?;
        }
        Ok(())
    }
}
