//! What a seed decides before a run begins: topics, clients and their habits, sizes, and what breaks when.
//!
//! Start at [`Plan::of`].

use std::time::Duration;

use protocol::{CleanupPolicy, Retention, TopicConfig, TopicName, TopicPartition, control::CreateTopic};
use storage::StoreOptions;

use super::{
    making::Maker,
    operator::{self, Likings},
    producer, reader,
};
use crate::{
    disk::{Cut, FaultKind, Faults, Loss},
    rng::Rng,
};

/// Topics with pipelines; each may be routed to from the other, too.
pub(super) const PIPED: &[&str] = &["orders", "clicks"];

/// Where records are routed to.
pub(super) const TARGETS: &[&str] = &["sink", "orders", "clicks", PASSING];

/// Topics whose settings change.
pub(super) const ALTERED: &[&str] = &["brief", "brief", "brief", "sink", "orders", PASSING];

/// The topic that comes and goes.
pub(super) const PASSING: &str = "passing";

/// The smaller limit of a topic for its records.
pub(super) const SMALL_RECORD_BYTES_MAX: u32 = 1_000;

/// What breaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// The program is killed.
    Kill,
    /// The power is cut, and cut again while the broker opens, so often.
    Cut { cut: Cut, again: u32 },
    /// The broker is shut down, and opened again.
    Restart,
    /// Calls to the disk fail.
    Fail(Faults),
    /// None does any more.
    Heal,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) topics: Vec<CreateTopic>,
    pub(super) producers: Vec<producer::Habits>,
    pub(super) readers: Vec<reader::Habits>,
    /// What happens, each so long after the one before.
    pub(super) acts: Vec<(Duration, Act)>,
    pub(super) operator: operator::Habits,
    pub(super) store: StoreOptions,
    pub(super) workers: usize,
    pub(super) retention_interval_ms: u64,
    pub(super) scrub_bytes_per_second: u64,
}

/// The name.
///
/// # Panics
/// When it is none.
pub(super) fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a name")
}

/// A request for a topic.
pub(super) fn create(name: &str, partitions: u32, config: TopicConfig) -> CreateTopic {
    CreateTopic { name: topic(name), partitions, config }
}

fn lasting() -> TopicConfig {
    TopicConfig { retention: Retention::FOREVER, ..TopicConfig::default() }
}

impl Plan {
    /// What a seed decides.
    pub(super) fn of(rng: &mut Rng) -> Plan {
        let brief = Retention {
            age_ms: rng.pick(&[None, Some(3_000)]),
            bytes: Some(rng.pick(&[10_000, 100_000])),
            policy: CleanupPolicy::Delete,
            ..Retention::default()
        };
        let topics = vec![
            create("orders", rng.within(1..=3) as u32, lasting()),
            create("clicks", rng.within(1..=2) as u32, lasting()),
            create("sink", rng.within(1..=2) as u32, lasting()),
            create("brief", 1, TopicConfig { retention: brief, ..TopicConfig::default() }),
            create(PASSING, 2, lasting()),
        ];
        let places: Vec<TopicPartition> = topics
            .iter()
            .flat_map(|topic| {
                let place = |partition| TopicPartition { topic: topic.name.clone(), partition };
                (0..topic.partitions).map(place)
            })
            .collect();
        let bent = rng.pick(&[Bent::None, Bent::None, Bent::Settings, Bent::Topics]);
        Plan {
            producers: (0..rng.within(2..=4)).map(|_| bent.bend(producer_habits(rng, &places))).collect(),
            readers: (0..rng.within(2..=5)).map(|_| reader_habits(rng, &places)).collect(),
            acts: acts(rng),
            operator: operator::Habits {
                pace_ms: rng.pick(bent.paces_ms()),
                pauses: rng.percent(30),
                likings: bent.likings(),
            },
            store: sizes(rng),
            workers: rng.within(2..=3) as usize,
            retention_interval_ms: rng.pick(&[200, 1_000, 5_000]),
            scrub_bytes_per_second: rng.pick(&[0, 64 << 10, 4 << 20]),
            topics,
        }
    }
}

/// What a run is mostly about: what needs one thing to happen in a narrow place is found sooner where little else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bent {
    None,
    /// Topics change under those who write to them.
    Settings,
    /// Topics come and go.
    Topics,
}

impl Bent {
    fn likings(self) -> Likings {
        match self {
            Bent::None => Likings::EVEN,
            Bent::Settings => Likings::SETTINGS,
            Bent::Topics => Likings::TOPICS,
        }
    }

    fn paces_ms(self) -> &'static [u64] {
        match self {
            Bent::None => &[100, 500, 3_000],
            Bent::Settings | Bent::Topics => &[30, 150],
        }
    }

    /// Everybody writes where it happens.
    fn bend(self, habits: producer::Habits) -> producer::Habits {
        let place = |name| TopicPartition { topic: topic(name), partition: 0 };
        match self {
            Bent::None => habits,
            Bent::Settings => producer::Habits {
                places: vec![place("brief")],
                breaks: 30,
                maker: Maker { oversized: 10, ..habits.maker },
                ..habits
            },
            Bent::Topics if habits.places.contains(&place(PASSING)) => habits,
            Bent::Topics => producer::Habits { places: [habits.places, vec![place(PASSING)]].concat(), ..habits },
        }
    }
}

fn producer_habits(rng: &mut Rng, places: &[TopicPartition]) -> producer::Habits {
    let mut own: Vec<TopicPartition> = Vec::new();
    for _ in 0..rng.within(1..=4) {
        let place = &places[rng.below(places.len())];
        if !own.contains(place) {
            own.push(place.clone());
        }
    }
    producer::Habits {
        places: own,
        batches: rng.pick(&[15, 40, 80]),
        in_flight_max: rng.pick(&[1, 3, 8, 40]),
        strays: rng.pick(&[0, 5, 15]),
        breaks: rng.pick(&[0, 3, 20]),
        maker: Maker { filling: rng.pick(&[8, 100, 300]), oversized: rng.pick(&[0, 2, 20]) },
    }
}

fn reader_habits(rng: &mut Rng, places: &[TopicPartition]) -> reader::Habits {
    reader::Habits {
        place: places[rng.below(places.len())].clone(),
        follows: rng.percent(70).then(|| rng.pick(&[1, 500, 5_000, 1 << 20])),
        rests: rng.pick(&[0, 5, 60]),
        vanishes: rng.pick(&[0, 5, 50]),
    }
}

fn acts(rng: &mut Rng) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    for _ in 0..rng.within(1..=5) {
        let wait = Duration::from_millis(rng.pick(&[5, 100, 700, 2_500]) + rng.within(0..=300));
        let act = match rng.below(10) {
            0..2 => Act::Kill,
            2..5 => Act::Cut { cut: cut(rng), again: rng.pick(&[0, 0, 1, 2]) },
            5 => Act::Restart,
            _ => Act::Fail(faults(rng)),
        };
        acts.push((wait, act));
        // Some faults end with the broker's life.
        if matches!(act, Act::Fail(_)) && rng.percent(60) {
            acts.push((Duration::from_millis(rng.pick(&[20, 300, 2_000])), Act::Heal));
        }
    }
    acts
}

fn cut(rng: &mut Rng) -> Cut {
    let bytes = if rng.percent(50) { None } else { Some(rng.pick(&Loss::EVERY)) };
    Cut { bytes, names: rng.pick(&Loss::EVERY) }
}

fn faults(rng: &mut Rng) -> Faults {
    Faults {
        kind: rng.pick(&[FaultKind::Io, FaultKind::Full, FaultKind::Sync]),
        after: rng.pick(&[0, 1, 5, 40]),
        count: rng.pick(&[1, 1, 3, 50, 100_000]),
        evict: rng.percent(50),
    }
}

/// Sizes under which everything happens early.
fn sizes(rng: &mut Rng) -> StoreOptions {
    StoreOptions {
        segment_bytes_max: rng.pick(&[256 << 10, 1 << 20, 8 << 20]),
        segment_entries_max: rng.pick(&[20, 100, 1_000]),
        group_bytes_max: rng.pick(&[64 << 10, 4 << 20]),
        tail_bytes_max: rng.pick(&[0, 10_000, 1 << 20]),
        preallocate_bytes: rng.pick(&[0, 64 << 10, 1 << 20]),
        cache_bytes: 1 << 20,
        overlay_bytes_max: rng.pick(&[2 << 10, 64 << 10, 16 << 20]),
        compaction_bytes: 1 << 20,
        reserve_bytes: rng.pick(&[0, 1 << 20]),
        commit_interval: rng.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_millis(3)]),
        ..StoreOptions::default()
    }
}
