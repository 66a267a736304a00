//! A producer and its connection, which stalls, loses, doubles, delays and breaks.
//!
//! Owns one client: batches in order, several in flight, the same ones again after its connection broke. What it sends
//! besides, batches that no broker may take, is numbered as its others are, and must be refused.
//!
//! Requests wait in the connection's `outbox` until they are due, then they are offered to the broker in order; answers
//! come in order per partition, some time after the broker gave them. A connection that breaks forgets both.
//!
//! Start at [`Producer::run`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use protocol::{BatchProducer, Epoch, ErrorCode, ProduceAnswer, ProducerId, RecordBatch, TopicPartition, WireError};

use super::{
    ledger::{BatchId, Made},
    link::{Answer, GAP, Kind, Link, Offered, Request, UNREADABLE},
    making::{Fresh, Maker, unreadable},
    plan::PASSING,
    window::{Outgoing, Reply, Settled, Window},
    world::{ANSWER_DURATION_MAX, Life, Stage, World, now},
};
use crate::{invariants::Violation, rng::Rng, schedule};

/// How long a producer rests after a refusal.
const REST: Duration = Duration::from_millis(200);

/// How often it looks, while it waits.
const LOOK_INTERVALS: [Duration; 4] =
    [Duration::from_micros(200), Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(25)];

/// What a producer does.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    /// Where it writes to.
    pub(super) places: Vec<TopicPartition>,
    /// Batches it makes.
    pub(super) batches: usize,
    /// Batches it has unanswered in a partition at most.
    pub(super) in_flight_max: usize,
    /// Batches that nobody may take, in a hundred.
    pub(super) strays: u64,
    /// Connections that break, in a thousand looks.
    pub(super) breaks: u64,
    /// What its records are like.
    pub(super) maker: Maker,
}

/// See the module.
pub(super) struct Producer {
    number: usize,
    name: String,
    rng: Rng,
    world: Arc<World>,
    habits: Habits,
    identity: Option<(ProducerId, Epoch)>,
    lanes: Vec<Lane>,
    left: usize,
    batches: BTreeMap<BatchId, Batch>,
    link: Option<Link>,
    /// What an earlier incarnation sent, and did not arrive yet.
    zombies: VecDeque<Zombie>,
    next_batch_at: Duration,
    /// It does not connect before.
    offline_until: Duration,
}

/// A partition that it writes to.
#[derive(Debug)]
struct Lane {
    place: TopicPartition,
    window: Window,
    rest_until: Duration,
    /// A batch of this incarnation was acknowledged there.
    has_written: bool,
}

/// A batch that may have to be sent again.
#[derive(Debug, Clone)]
struct Batch {
    encoded: RecordBatch,
    /// It may be sent twice at once: no setting that changes meanwhile makes a difference to it.
    is_plain: bool,
}

/// A batch of an incarnation that is gone.
struct Zombie {
    lane: usize,
    batch: BatchId,
    encoded: RecordBatch,
    due: Duration,
}

impl Producer {
    pub(super) fn new(number: usize, habits: Habits, rng: Rng, world: Arc<World>) -> Producer {
        let lane = |place: &TopicPartition| Lane {
            place: place.clone(),
            window: Window::default(),
            rest_until: Duration::ZERO,
            has_written: false,
        };
        Producer {
            number,
            name: format!("producer-{number}"),
            rng,
            world,
            lanes: habits.places.iter().map(lane).collect(),
            left: habits.batches,
            habits,
            identity: None,
            batches: BTreeMap::new(),
            link: None,
            zombies: VecDeque::new(),
            next_batch_at: Duration::ZERO,
            offline_until: Duration::ZERO,
        }
    }

    /// Works until everybody leaves.
    pub(super) fn run(mut self) {
        let mut looks = 0;
        while self.world.stage() != Stage::Over {
            let has_moved = self.step();
            let is_idle = self.is_idle();
            self.world.set_idle(self.number, is_idle);
            looks = if has_moved { 0 } else { (looks + 1).min(LOOK_INTERVALS.len() - 1) };
            schedule::sleep(LOOK_INTERVALS[looks]);
        }
    }

    fn is_idle(&self) -> bool {
        let is_silent = self.link.as_ref().is_none_or(|link| link.outbox.is_empty() && link.strays.is_empty());
        let is_done = self.left == 0 || self.world.stage() != Stage::Working;
        is_done && is_silent && self.zombies.is_empty() && self.lanes.iter().all(|lane| lane.window.is_empty())
    }

    /// Does what can be done now; whether there was anything.
    fn step(&mut self) -> bool {
        if self.world.stage() == Stage::Healing {
            self.left = 0;
        }
        let mut has_moved = self.make();
        if !self.connect() {
            return has_moved;
        }
        has_moved |= self.send();
        has_moved |= self.deliver();
        has_moved |= self.collect();
        has_moved |= self.take_answers();
        self.wake_zombies();
        self.mishap();
        has_moved
    }

    /// Makes a batch now and then.
    fn make(&mut self) -> bool {
        if self.left == 0 || now() < self.next_batch_at {
            return false;
        }
        self.left -= 1;
        let pause = self.rng.pick(&[0, 0, 1, 5, 20, 100, 400]);
        self.next_batch_at = now() + Duration::from_millis(pause);
        let lane = self.rng.below(self.lanes.len());
        if self.rng.percent(self.habits.strays) && self.identity.is_some() {
            self.make_stray(lane);
            return true;
        }
        let (batch, records) = self.fresh(lane, Some(self.number));
        self.lanes[lane].window.push(batch, records);
        true
    }

    /// A batch of a number of its own, and how many records it has.
    fn fresh(&mut self, lane: usize, order: Option<usize>) -> (BatchId, u32) {
        let id = self.world.next_batch();
        let Fresh { records, encoded, is_small } = self.habits.maker.make(id, &mut self.rng);
        let (place, count) = (self.lanes[lane].place.clone(), records.len() as u32);
        self.batches.insert(id, Batch { encoded, is_plain: is_small && place.topic.as_str() != PASSING });
        let made = Made { order, place: place.clone(), records };
        self.world.note(&self.name, format_args!("makes batch {} of {count} for {place}", id.0), |ledger| {
            ledger.made(id, made);
            Ok(())
        });
        (id, count)
    }

    /// Puts something on the connection that is no part of the order.
    fn make_stray(&mut self, lane: usize) {
        let (id, _) = self.fresh(lane, None);
        let plain = self.batches.remove(&id).expect("it was just made").encoded;
        let (producer, epoch) = self.identity.expect("strays come after the identity");
        let kind = self.rng.below(3);
        let (encoded, kind) = match kind {
            0 => {
                let base_sequence = self.lanes[lane].window.sequence_far_ahead();
                (plain.with_producer(BatchProducer { id: producer, epoch, base_sequence }), Kind::Bad(GAP))
            }
            1 => (unreadable(&plain), Kind::Bad(UNREADABLE)),
            _ => (plain, Kind::Loose),
        };
        let due = now() + self.delay();
        match &mut self.link {
            Some(link) => link.outbox.push_back(Request { lane, batch: id, encoded, due, kind }),
            None => self.world.tell(&self.name, format_args!("loses batch {}", id.0)),
        }
    }

    /// Makes sure that there is a connection, and an identity.
    fn connect(&mut self) -> bool {
        if let Some(link) = &self.link {
            if self.world.is_current(link.life) {
                return true;
            }
            self.disconnect("the broker is gone");
        }
        if now() < self.offline_until {
            return false;
        }
        let Some(life) = self.world.life() else { return false };
        if self.identity.is_none() && !self.identify(&life) {
            return false;
        }
        self.world.tell(&self.name, format_args!("connects in life {}", life.number));
        self.link = Some(Link::new(life, self.lanes.len()));
        true
    }

    /// Gets an identity that nobody had before; whether it did.
    fn identify(&mut self, life: &Life) -> bool {
        self.world.request(&self.name, "asks who it is");
        let answer = schedule::block_on(life.broker.init_producer());
        if !self.world.is_current(life.number) {
            return false;
        }
        match answer {
            Ok(identity) => {
                self.world.tell(&self.name, format_args!("is {identity:?}"));
                self.identity = Some(identity);
                true
            }
            Err(error) => {
                self.world.tell(&self.name, format_args!("is nobody: {error}"));
                schedule::sleep(REST);
                false
            }
        }
    }

    /// The connection breaks: what is on it is lost.
    fn disconnect(&mut self, why: &str) {
        let Some(link) = self.link.take() else { return };
        let (lost, lost_answers, unanswered) = link.at_stake();
        self.world.tell(&self.name, format_args!("disconnects: {why}; {lost} requests lost, {unanswered} unanswered"));
        self.world.count("a connection broke");
        self.offline_until = now() + Duration::from_millis(self.rng.pick(&[0, 0, 1, 20, 300, 1_000]));
        self.world.count_if("a request was lost", lost > 0);
        self.world.count_if("an answer was lost", lost_answers > 0);
        self.lanes.iter_mut().for_each(|lane| lane.window.detach());
    }

    /// A time for something to arrive in.
    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.pick(&[0, 0, 50, 300, 2_000, 30_000]))
    }

    /// Puts batches on the connection, as far as the windows go.
    fn send(&mut self) -> bool {
        let mut has_sent = false;
        for at in 0..self.lanes.len() {
            if self.lanes[at].window.is_resting() && now() >= self.lanes[at].rest_until {
                self.lanes[at].window.resume();
            }
            if now() < self.lanes[at].rest_until {
                continue;
            }
            while let Some(outgoing) = self.lanes[at].window.next(self.habits.in_flight_max) {
                self.put(at, outgoing, false);
                has_sent = true;
                if self.batches[&outgoing.batch].is_plain
                    && self.rng.percent(3)
                    && let Some(double) = self.lanes[at].window.double()
                {
                    self.world.count("a request was doubled");
                    self.put(at, double, true);
                }
            }
        }
        has_sent
    }

    fn put(&mut self, lane: usize, outgoing: Outgoing, is_double: bool) {
        let Outgoing { batch, sequence, is_retry } = outgoing;
        let (id, epoch) = self.identity.expect("a connection has an identity");
        let producer = BatchProducer { id, epoch, base_sequence: sequence };
        let encoded = self.batches[&batch].encoded.clone().with_producer(producer);
        let due = now() + self.delay();
        let link = self.link.as_mut().expect("it is connected");
        link.outbox.push_back(Request { lane, batch, encoded, due, kind: Kind::Numbered { is_retry, is_double } });
        self.world.count_if("a batch was sent again", is_retry && !is_double);
    }

    /// Hands the broker what is due, in order.
    fn deliver(&mut self) -> bool {
        let mut has_moved = false;
        loop {
            let link = self.link.as_mut().filter(|link| self.world.is_current(link.life));
            let Some(request) = link.and_then(Link::arrived) else { break };
            self.world.count_if("a request came late", now() > request.due + Duration::from_millis(10));
            self.offer(request);
            has_moved = true;
        }
        has_moved
    }

    fn offer(&mut self, request: Request) {
        let Request { lane, batch, encoded, kind, .. } = request;
        let place = &self.lanes[lane].place;
        let Producer { world, link, name, .. } = self;
        let link = link.as_mut().expect("it is connected");
        let header = *encoded.header();
        let what = format!("offers batch {} to {place}, sequence {} ({kind:?})", batch.0, header.base_sequence);
        let found = link.partition(lane, place);
        if !world.is_current(link.life) {
            return;
        }
        let offered = match found {
            Err(error) => {
                world.request(name, format_args!("{what}, where there is none"));
                Offered { batch, partition: None, kind, offered_at: now(), answer: Answer::Given(Err(error), now()) }
            }
            Ok(partition) => {
                let id = partition.id();
                world.counts(|counts| counts.requests += 1);
                world.note(name, what, |ledger| {
                    ledger.partition_is(id, partition.topic_partition())?;
                    ledger.offered(batch, id);
                    Ok(())
                });
                let ticket = partition.produce(encoded);
                Offered { batch, partition: Some(id), kind, offered_at: now(), answer: Answer::Waited(ticket) }
            }
        };
        match kind {
            Kind::Numbered { .. } => link.in_broker[lane].push_back(offered),
            Kind::Bad(_) | Kind::Loose => link.strays.push(offered),
        }
    }

    /// Looks which batches the broker has answered.
    fn collect(&mut self) -> bool {
        let mut has_moved = false;
        let delays: Vec<Duration> = (0..self.lanes.len()).map(|_| self.delay()).collect();
        let Some(link) = &mut self.link else { return false };
        let lanes = link.in_broker.iter_mut().zip(delays);
        let all = lanes.flat_map(|(lane, delay)| lane.iter_mut().map(move |offered| (offered, delay)));
        for (offered, delay) in all.chain(link.strays.iter_mut().map(|stray| (stray, Duration::ZERO))) {
            has_moved |= offered.look(delay);
            if offered.waits_since().is_some_and(|since| now() > since + ANSWER_DURATION_MAX) {
                let what = format!("batch {} has no answer after {ANSWER_DURATION_MAX:?}", offered.batch.0);
                self.world.fail(Violation::new("everybody is answered", what));
                return false;
            }
        }
        // What a killed broker still said, nobody heard.
        let life = link.life;
        if !self.world.is_current(life) {
            self.disconnect("the broker is gone");
        }
        has_moved
    }

    /// Takes the answers that have arrived.
    fn take_answers(&mut self) -> bool {
        let mut has_moved = false;
        for lane in 0..self.lanes.len() {
            while let Some(offered) = self.link.as_mut().and_then(|link| link.answered(lane)) {
                self.take(lane, offered);
                has_moved = true;
            }
        }
        let strays = self.link.as_mut().map_or_else(Vec::new, Link::answered_strays);
        strays.into_iter().for_each(|stray| self.take_stray(stray));
        has_moved
    }

    fn take(&mut self, lane: usize, offered: Offered) {
        let Offered {
            batch, partition, kind: Kind::Numbered { is_retry, .. }, answer: Answer::Given(outcome, _), ..
        } = offered
        else {
            unreachable!("only answers to numbered batches are taken")
        };
        let reply = match (&outcome, partition) {
            (Ok(answer), Some(partition)) => {
                self.world.note(&self.name, format_args!("batch {} is {}", batch.0, told(answer)), |ledger| {
                    ledger.acked(batch, partition, answer)
                });
                self.count_answer(answer, is_retry);
                self.lanes[lane].has_written = true;
                Reply::Acked
            }
            (Ok(_), None) => unreachable!("without a partition there is no answer"),
            (Err(error), _) => {
                self.world.tell(&self.name, format_args!("batch {} is refused: {:?}, {error}", batch.0, error.code));
                self.count_refusal(error.code);
                if error.code == ErrorCode::UnknownTopic
                    && let Some(link) = &mut self.link
                {
                    link.partitions[lane] = None;
                }
                if error.code == ErrorCode::ProducerFenced {
                    // Only a later incarnation fences, and this is the last one.
                    self.world.fail(Violation::new("fencing", format!("batch {} was fenced by nobody", batch.0)));
                }
                Reply::of(error.code)
            }
        };
        match self.lanes[lane].window.answered(reply) {
            Settled::Nothing => {}
            Settled::Acked(batch) => drop(self.batches.remove(&batch)),
            Settled::Refused(batch) => {
                self.batches.remove(&batch);
                self.world.count("a batch was refused for good");
                self.world.count_if("batches were numbered anew", self.lanes[lane].window.has_batches());
                self.world.note(&self.name, format_args!("gives batch {} up", batch.0), |ledger| {
                    ledger.refused(batch);
                    Ok(())
                });
            }
        }
        if self.lanes[lane].window.is_resting() {
            let asked = outcome.err().map_or(0, |error| error.retry_after_ms);
            self.lanes[lane].rest_until = now() + REST.max(Duration::from_millis(asked.into()));
            self.world.count("a batch was refused and tried again");
        }
        if self.lanes.iter().any(|lane| lane.window.is_forgotten())
            && self.lanes.iter().all(|lane| lane.window.is_answered())
        {
            self.world.count("a producer was forgotten");
            self.begin_anew(None);
        }
    }

    fn count_answer(&self, answer: &ProduceAnswer, is_retry: bool) {
        let books = &answer.books;
        self.world.counts(|counts| {
            counts.note("a batch was acknowledged");
            if is_retry {
                counts.note("a retry was answered alike");
            }
            for (what, happened) in [
                ("a record became a dead letter", books.dead_lettered > 0),
                ("a record was rejected", books.rejected > 0),
                ("a record was dropped", books.dropped > 0),
            ] {
                counts.note_times(what, happened.into());
            }
        });
    }

    fn count_refusal(&self, code: ErrorCode) {
        match code {
            ErrorCode::RecordTooLarge => self.world.count("a record over the limit was refused"),
            ErrorCode::TransformPaused => self.world.count("a partition paused"),
            _ => {}
        }
    }

    fn take_stray(&mut self, stray: Offered) {
        let Offered { batch, partition, kind, answer: Answer::Given(outcome, _), .. } = stray else {
            unreachable!("only answers are taken")
        };
        let name = self.name.clone();
        match (kind, outcome, partition) {
            (Kind::Loose, Ok(answer), Some(partition)) => {
                self.world.count("a batch without a producer was stored");
                self.world.note(&name, format_args!("stray batch {} is {}", batch.0, told(&answer)), |ledger| {
                    ledger.acked(batch, partition, &answer)
                });
            }
            (Kind::Bad(why), Ok(answer), _) => {
                let what = format!("batch {} was stored in spite of {why}: {answer:?}", batch.0);
                self.world.fail(Violation::new("refused is not stored", what));
            }
            (kind, outcome, _) => {
                let code = outcome.err().map_or(ErrorCode::Internal, |error| error.code);
                self.world.counts(|counts| match kind {
                    Kind::Bad(GAP) => counts.note("a gap in the sequences was refused"),
                    Kind::Bad(_) => counts.note("a batch that cannot be read was refused"),
                    _ => {}
                });
                self.world.note(&name, format_args!("stray batch {} is refused: {code:?}", batch.0), |ledger| {
                    if Reply::of(code) != (Reply::Retry { in_doubt: true }) {
                        ledger.refused(batch);
                    }
                    Ok(())
                });
            }
        }
    }

    /// Takes another identity: the next epoch of this one, or a new one. What may be stored is given up.
    fn begin_anew(&mut self, next: Option<(ProducerId, Epoch)>) {
        self.world.tell(&self.name, format_args!("begins anew, as {next:?}"));
        self.disconnect("it begins anew");
        self.identity = next;
        for at in 0..self.lanes.len() {
            self.lanes[at].has_written = false;
            for batch in self.lanes[at].window.restart() {
                self.batches.remove(&batch);
            }
        }
    }

    /// What an incarnation that is gone had sent arrives after all.
    fn wake_zombies(&mut self) {
        while self.zombies.front().is_some_and(|zombie| zombie.due <= now()) {
            let Zombie { lane, batch, encoded, .. } = self.zombies.pop_front().expect("it was looked at");
            let must_be_fenced = self.lanes[lane].has_written;
            let place = self.lanes[lane].place.clone();
            let Some(link) = self.link.as_mut() else { continue };
            let Ok(partition) = link.partition(lane, &place) else { continue };
            let (id, life) = (partition.id(), link.life);
            self.world.note(&self.name, format_args!("a ghost offers batch {} to {place}", batch.0), |ledger| {
                ledger.partition_is(id, partition.topic_partition())?;
                ledger.offered(batch, id);
                Ok(())
            });
            let outcome = schedule::block_on(partition.produce(encoded));
            if !self.world.is_current(life) {
                continue;
            }
            let outcome = outcome.map_err(|error| WireError::from(error).code);
            self.world.tell(&self.name, format_args!("the ghost's batch {} is {:?}", batch.0, outcome.as_ref().err()));
            match outcome {
                Ok(_) if must_be_fenced => {
                    let what = format!("batch {} was taken after a later incarnation wrote", batch.0);
                    self.world.fail(Violation::new("fencing", what));
                }
                Ok(answer) => {
                    self.world.note(&self.name, "the ghost is answered", |ledger| ledger.acked(batch, id, &answer))
                }
                Err(code) => self.world.count_if("a producer was fenced", code == ErrorCode::ProducerFenced),
            }
        }
    }

    /// Something goes wrong with the connection.
    fn mishap(&mut self) {
        if self.world.stage() != Stage::Working || self.rng.within(0..=999) >= self.habits.breaks {
            return;
        }
        match self.rng.below(6) {
            0 | 1 => {
                let stalled_until = now() + Duration::from_millis(self.rng.within(10..=3_000));
                self.world.tell(&self.name, format_args!("stalls until {stalled_until:?}"));
                self.world.count("a connection stalled");
                if let Some(link) = &mut self.link {
                    link.stalled_until = stalled_until;
                }
            }
            2 => self.restart(),
            _ => self.disconnect("the network is gone"),
        }
    }

    /// The program ends and begins again, with the next epoch; what it had sent may still arrive.
    fn restart(&mut self) {
        let Some((id, epoch)) = self.identity else { return };
        let Some(link) = &mut self.link else { return };
        let mut due = now();
        for Request { lane, batch, encoded, kind, .. } in std::mem::take(&mut link.outbox) {
            if matches!(kind, Kind::Numbered { is_double: false, .. }) {
                due += Duration::from_millis(self.rng.within(0..=300));
                self.zombies.push_back(Zombie { lane, batch, encoded, due });
            }
        }
        self.begin_anew(Some((id, Epoch(epoch.0 + 1))));
    }
}

fn told(answer: &ProduceAnswer) -> String {
    let ProduceAnswer { base_offset, next_offset, books, rejects } = answer;
    format!("stored at {base_offset}..{next_offset}, {books:?}, {} rejects", rejects.len())
}
