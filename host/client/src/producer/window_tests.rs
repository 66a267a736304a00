//! A window against a model of the broker: whatever is lost, refused or forgotten, every batch is answered once, in
//! order, and stored at most once, in order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const RECORDS: u32 = 3;
const BYTES: usize = 10;

/// The broker's end of one partition: stores batches in the order of their sequences, and answers a repeated one alike.
#[derive(Default)]
struct Broker {
    /// What is stored: batches, in order.
    log: Vec<u32>,
    /// Sequences it can answer again, with what it stored.
    remembered: Vec<(Sequence, u32)>,
    next: Sequence,
}

enum Answer {
    Ack,
    Refused(Refusal),
}

impl Broker {
    fn produce(&mut self, batch: u32, sequence: Sequence, fault: Option<Refusal>) -> Answer {
        if let Some((_, stored)) = self.remembered.iter().find(|(known, _)| *known == sequence) {
            assert_eq!(*stored, batch, "a sequence stands for one batch");
            return Answer::Ack;
        }
        if sequence != self.next {
            return Answer::Refused(Refusal::OutOfOrder);
        }
        match fault {
            // The commit's outcome was not known, and it did happen.
            Some(Refusal::Retry { in_doubt: true }) => self.store(batch, sequence),
            None => self.store(batch, sequence),
            Some(_) => {}
        }
        fault.map_or(Answer::Ack, Answer::Refused)
    }

    fn store(&mut self, batch: u32, sequence: Sequence) {
        self.log.push(batch);
        self.remembered.push((sequence, batch));
        self.next = sequence.plus(RECORDS);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Push,
    Send,
    /// The broker takes the next frame.
    Take(Option<Fault>),
    /// The client takes the next answer.
    Answer,
    Lose,
    Attach,
    Resume,
    Expire,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Overloaded,
    Unknown,
    TooLarge,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Push),
        6 => Just(Event::Send),
        6 => Just(Event::Take(None)),
        1 => prop_oneof![Just(Fault::Overloaded), Just(Fault::Unknown), Just(Fault::TooLarge)].prop_map(|fault| Event::Take(Some(fault))),
        6 => Just(Event::Answer),
        1 => Just(Event::Lose),
        3 => Just(Event::Attach),
        3 => Just(Event::Resume),
        1 => Just(Event::Expire),
    ]
}

#[derive(Default)]
struct World {
    window: Window<u32>,
    broker: Broker,
    /// On the way to the broker, and back.
    frames: VecDeque<(u64, u32, Sequence)>,
    answers: VecDeque<(u64, u32, Answer)>,
    pushed: u32,
    /// Every batch with what the program was told: whether it is stored, `None` when that is unknown.
    told: Vec<(u32, Option<bool>)>,
    /// What brokers of earlier identities stored.
    earlier: Vec<u32>,
}

impl World {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Push => {
                self.window.push(self.pushed, BYTES, RECORDS);
                self.pushed += 1;
            }
            Event::Send => {
                if let Some(outgoing) = self.window.next() {
                    self.frames.push_back((outgoing.frame, *outgoing.batch, outgoing.sequence));
                }
            }
            Event::Take(fault) => {
                let Some((frame, batch, sequence)) = self.frames.pop_front() else { return };
                let fault = fault.map(|fault| match fault {
                    Fault::Overloaded => Refusal::Retry { in_doubt: false },
                    Fault::Unknown => Refusal::Retry { in_doubt: true },
                    Fault::TooLarge => Refusal::Final,
                });
                self.answers.push_back((frame, batch, self.broker.produce(batch, sequence, fault)));
            }
            Event::Answer => self.answer(),
            Event::Lose => {
                self.window.detach();
                self.frames.clear();
                self.answers.clear();
            }
            Event::Attach if self.window.phase == Phase::Detached => self.window.attach(BYTES * 5),
            Event::Attach => {}
            Event::Resume => self.window.resume(),
            Event::Expire => {
                let oldest = self.window.oldest().copied();
                for expired in self.window.expire(|batch| Some(*batch) == oldest) {
                    self.told.push((expired.batch, if expired.in_doubt { None } else { Some(false) }));
                }
            }
        }
    }

    fn answer(&mut self) {
        let Some((frame, sent, answer)) = self.answers.pop_front() else { return };
        let (batch, stored) = match answer {
            Answer::Ack => (self.window.acked(frame).unwrap(), true),
            Answer::Refused(refusal) => (self.window.refused(frame, refusal).unwrap(), false),
        };
        if let Some(batch) = batch {
            assert_eq!(batch, sent, "an answer is for the batch of its frame");
            self.told.push((batch, Some(stored)));
        }
        if self.window.is_forgotten() {
            assert!(self.window.is_answered());
            let in_doubt = self.window.restart();
            self.told.extend(in_doubt.into_iter().map(|batch| (batch, None)));
            self.earlier.append(&mut self.broker.log);
            self.broker = Broker::default();
            self.frames.clear();
        }
    }

    /// Nothing goes wrong any more: everything is answered soon.
    fn settle(&mut self) {
        self.happen(&Event::Lose);
        for _ in 0..10 * (self.pushed + 10) {
            if self.window.is_empty() {
                return;
            }
            for event in [Event::Attach, Event::Resume, Event::Send, Event::Take(None), Event::Answer] {
                self.happen(&event);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn every_batch_is_answered_once_and_stored_as_told(events in prop::collection::vec(event(), 0..200)) {
        let mut world = World::default();
        events.iter().for_each(|event| world.happen(event));
        world.settle();
        prop_assert!(world.window.is_empty());

        let mut answered: Vec<u32> = world.told.iter().map(|(batch, _)| *batch).collect();
        prop_assert!(answered.is_sorted(), "out of order: {answered:?}");
        answered.dedup();
        prop_assert_eq!(answered, (0..world.pushed).collect::<Vec<_>>());

        let log: Vec<u32> = world.earlier.iter().chain(&world.broker.log).copied().collect();
        prop_assert!(log.is_sorted_by(|a, b| a < b), "stored twice or out of order: {log:?}");
        for (batch, told) in &world.told {
            if let Some(stored) = told {
                prop_assert_eq!(log.contains(batch), *stored, "batch {}", batch);
            }
        }
    }

    #[test]
    fn without_faults_the_window_is_kept_full_and_in_order(count in 1_u32..50) {
        let mut world = World::default();
        world.happen(&Event::Attach);
        (0..count).for_each(|_| world.happen(&Event::Push));
        (0..count).for_each(|_| world.happen(&Event::Send));
        prop_assert_eq!(world.frames.len(), 5.min(count as usize));
        world.settle();
        prop_assert_eq!(world.broker.log, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn an_answer_out_of_place_is_noticed() {
    let mut window = Window::default();
    assert!(window.acked(0).is_err());
    window.attach(BYTES);
    window.push(0, BYTES, RECORDS);
    let frame = window.next().unwrap().frame;
    assert!(window.acked(frame + 1).is_err());
    assert_eq!(window.acked(frame), Ok(Some(0)));
    assert!(window.acked(frame).is_err());
}

#[test]
fn a_batch_larger_than_the_window_travels_alone() {
    let mut window = Window::default();
    window.attach(BYTES);
    (0..2).for_each(|batch| window.push(batch, 3 * BYTES, RECORDS));
    let frame = window.next().unwrap().frame;
    assert!(window.next().is_none());
    window.acked(frame).unwrap();
    assert!(window.next().is_some());
}

#[test]
fn the_sequence_ahead_is_the_one_a_batch_gets() {
    let mut window = Window::default();
    window.attach(BYTES * 10);
    for batch in 0..4 {
        let ahead = window.sequence_ahead();
        window.push(batch, BYTES, RECORDS);
        if batch == 1 {
            while window.next().is_some() {}
        }
        assert_eq!(ahead, Sequence(batch * RECORDS));
    }
}
