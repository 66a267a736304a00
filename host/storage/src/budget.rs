//! The disk budget: how much the store may take, and whether an append still fits.
//!
//! Owns the decision and the words of a refusal. [`Gauge`] is a value: it is told what is used and what is left.
//! [`DiskBudget`] asks the disk, through the seam, and holds or gives up the reserve as was decided. Neither reads a
//! clock or waits: who commits does.
//!
//! ```text
//! 0 ............................................... limit      `storage.budget`
//! |  free              |  slowed, 1..50 ms  | reserve |
//!                      '---- slow zone -----'---------'
//! ```
//! The file system sets a second bound of the same form, where other programs fill it: what is available, less what the
//! reserve still lacks. The nearer one counts.
//!
//! Invariants
//! - No append is let in that would take the store's files beyond the limit less the reserve.
//! - What is decided depends on nothing but what is measured: when space returns, appends are taken again.
//!
//! Start at [`DiskBudget::room`], and at [`Gauge::decide`] for the rule.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use protocol::units::{self, NotUnderstood};

use crate::{Space, StoreOptions, reserve::Reserve};

/// The delay of a commit where the slow zone begins, and where it ends.
const DELAY_MS: (u64, u64) = (1, 50);

/// The slow zone never begins earlier than this before the limit: a large disk has room for producers to notice.
const SLOW_BYTES_MAX: u64 = 1 << 30;

/// The budget holds at least so many segments.
const SEGMENTS_MIN: u64 = 8;

/// What of the budget the reserve takes at most, as a divisor.
const RESERVE_SHARE: u64 = 16;

/// How much of the disk the store may take: `storage.budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the file system that the store lies on, 1 to 100.
    SharePercent(u8),
}

impl Default for Budget {
    /// 80 %: the host's own logs and updates have room beside it.
    fn default() -> Self {
        Budget::SharePercent(80)
    }
}

impl Budget {
    /// In bytes, on a file system of this size.
    #[must_use]
    pub fn limit_bytes(self, space: Space) -> u64 {
        match self {
            Budget::Bytes(bytes) => bytes,
            Budget::SharePercent(percent) => space.total_bytes / 100 * u64::from(percent),
        }
    }
}

impl FromStr for Budget {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Budget, NotUnderstood> {
        let budget = match text.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse().ok().map(Budget::SharePercent),
            None => units::parse_bytes(text).ok().map(Budget::Bytes),
        };
        let usable = |budget: &Budget| matches!(budget, Budget::Bytes(1..) | Budget::SharePercent(1..=100));
        budget.filter(usable).ok_or_else(|| {
            NotUnderstood::new(format!(
                "`{text}` is not a size such as `10GiB` or a share such as `80%`, above 0 and at most 100%"
            ))
        })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Bytes(bytes) => f.write_str(&units::exact_bytes(*bytes)),
            Budget::SharePercent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl StoreOptions {
    /// The same, with segments that suit the budget. Space is freed by whole segments, and never the active one: a small
    /// budget that lay in one segment would stay used up whatever is deleted.
    pub(crate) fn fitted_to_budget(mut self, space: Space) -> StoreOptions {
        let limit_bytes = self.budget.limit_bytes(space);
        self.segment_bytes_max = self.segment_bytes_max.min(limit_bytes / SEGMENTS_MIN);
        self.preallocate_bytes = self.preallocate_bytes.min(self.segment_bytes_max / 4);
        self
    }
}

/// What the disk holds at the time of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskUse {
    /// What the store's files take, the reserve not counted.
    pub(crate) used_bytes: u64,
    /// What the reserve takes.
    pub(crate) reserve_held_bytes: u64,
    /// What the file system has left for us.
    pub(crate) available_bytes: u64,
}

/// Whether an append may take more of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Room {
    /// It may.
    Free,
    /// It may, after a delay: the limit is near.
    Slow {
        /// For how long the commit waits, in milliseconds.
        delay_ms: u64,
        /// Which limit is near.
        why: String,
    },
    /// It may not, until there is space again.
    Full {
        /// Which limit is reached, and the way out.
        why: String,
    },
}

/// The budget of one open store: the decision, made of what the disk says, and the reserve that goes with it.
#[derive(Debug)]
pub(crate) struct DiskBudget {
    options: StoreOptions,
    dir: PathBuf,
    reserve: Reserve,
}

impl DiskBudget {
    /// For the store in `dir`; takes nothing yet.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn open(options: &StoreOptions, dir: &Path) -> io::Result<DiskBudget> {
        let reserve = Reserve::find(&*options.file_system, dir)?;
        Ok(DiskBudget { options: options.clone(), dir: dir.to_owned(), reserve })
    }

    /// Whether an append that lets the files grow by `wanted_bytes` has room, where they take `used_bytes` (the reserve
    /// not counted). Gives up the reserve when there is none, and takes it again when there is.
    ///
    /// # Errors
    /// When the file system does not say what it has left.
    pub(crate) fn room(&mut self, used_bytes: u64, wanted_bytes: u64) -> io::Result<Room> {
        let file_system = &*self.options.file_system;
        let space = file_system.space(&self.dir)?;
        // Made anew each time, it follows a file system that is resized.
        let gauge = Gauge::new(&self.options, space);
        let disk = DiskUse {
            used_bytes,
            reserve_held_bytes: self.reserve.held_bytes(),
            available_bytes: space.available_bytes,
        };
        let room = gauge.decide(disk, wanted_bytes);
        let kept = match room {
            Room::Full { .. } => self.reserve.release(file_system),
            // The gauge left room for what it lacks.
            Room::Free | Room::Slow { .. } => self.reserve.take(file_system, gauge.reserve_bytes()),
        };
        if let Err(error) = kept {
            // Without it, or with it in the way, appends are still judged rightly; the next commit tries again.
            tracing::warn!(%error, "the disk reserve cannot be taken or given up");
        }
        Ok(room)
    }

    /// What the reserve takes of the disk.
    pub(crate) fn reserve_held_bytes(&self) -> u64 {
        self.reserve.held_bytes()
    }
}

/// Decides by the limits of one store on one file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauge {
    budget: Budget,
    total_bytes: u64,
    limit_bytes: u64,
    reserve_bytes: u64,
    slow_bytes: u64,
    floor_bytes: u64,
}

/// One of the two bounds, seen from where the store stands.
struct Bound {
    /// What may still be taken.
    left_bytes: u64,
    /// Whether even that is too much already.
    is_passed: bool,
}

impl Bound {
    fn new(limit_bytes: u64, taken_bytes: u64) -> Bound {
        Bound { left_bytes: limit_bytes.saturating_sub(taken_bytes), is_passed: taken_bytes > limit_bytes }
    }

    fn refuses(&self, wanted_bytes: u64) -> bool {
        self.is_passed || wanted_bytes > self.left_bytes
    }
}

impl Gauge {
    /// For a store with these options on a file system with this space.
    pub(crate) fn new(options: &StoreOptions, space: Space) -> Gauge {
        let limit_bytes = options.budget.limit_bytes(space);
        let reserve_bytes = options.reserve_bytes.min(limit_bytes / RESERVE_SHARE);
        let step_bytes = options.preallocate_bytes;
        // A budget of a few steps would be slow from its beginning.
        let slow_bytes =
            (limit_bytes / 20).min(SLOW_BYTES_MAX).max(2 * step_bytes).min((limit_bytes - reserve_bytes) / 2);
        Gauge {
            budget: options.budget,
            total_bytes: space.total_bytes,
            limit_bytes,
            reserve_bytes,
            slow_bytes,
            // The state's file grows without being allocated ahead: it shall find blocks until the reserve is free.
            floor_bytes: step_bytes,
        }
    }

    /// What the reserve is to hold.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Whether an append that lets the files grow by `wanted_bytes` has room.
    pub(crate) fn decide(&self, disk: DiskUse, wanted_bytes: u64) -> Room {
        let missing_bytes = self.reserve_bytes.saturating_sub(disk.reserve_held_bytes);
        let own = Bound::new(self.limit_bytes - self.reserve_bytes, disk.used_bytes);
        let shared = Bound::new(disk.available_bytes, missing_bytes + self.floor_bytes);
        if own.refuses(wanted_bytes) {
            return Room::Full { why: self.budget_is_full(disk) };
        }
        if shared.refuses(wanted_bytes) {
            return Room::Full { why: self.file_system_is_full(disk, wanted_bytes) };
        }
        let left_bytes = own.left_bytes.min(shared.left_bytes) - wanted_bytes;
        if left_bytes >= self.slow_bytes {
            return Room::Free;
        }
        let why = match own.left_bytes <= shared.left_bytes {
            true => self.budget_is_near(disk),
            false => self.file_system_is_near(disk),
        };
        Room::Slow { delay_ms: self.delay_ms(left_bytes), why }
    }

    /// Linear through the zone, so that producers settle at the pace at which space is freed.
    fn delay_ms(&self, left_bytes: u64) -> u64 {
        let (first, last) = DELAY_MS;
        let into = self.slow_bytes - left_bytes;
        first + (u128::from(last - first) * u128::from(into) / u128::from(self.slow_bytes)) as u64
    }

    fn budget_is_full(&self, disk: DiskUse) -> String {
        format!(
            "`storage.budget` of {} is used up: the store takes {}, and {} are held in reserve; raise the budget, shorten retention or delete topics",
            self.budget_in_bytes(),
            units::bytes(disk.used_bytes),
            units::bytes(self.reserve_bytes),
        )
    }

    fn file_system_is_full(&self, disk: DiskUse, wanted_bytes: u64) -> String {
        let missing_bytes = self.reserve_bytes.saturating_sub(disk.reserve_held_bytes);
        format!(
            "the file system has only {} left and {} are needed: of its {}, the store takes {} and others take the rest; free some of that, shorten retention or delete topics",
            units::bytes(disk.available_bytes),
            units::bytes(wanted_bytes + missing_bytes + self.floor_bytes),
            units::bytes(self.total_bytes),
            units::bytes(disk.used_bytes + disk.reserve_held_bytes),
        )
    }

    fn budget_is_near(&self, disk: DiskUse) -> String {
        format!(
            "the store takes {}, near `storage.budget` of {}; raise the budget, shorten retention or delete topics",
            units::bytes(disk.used_bytes + disk.reserve_held_bytes),
            self.budget_in_bytes(),
        )
    }

    fn file_system_is_near(&self, disk: DiskUse) -> String {
        format!(
            "the file system has only {} of {} left; free some of it, shorten retention or delete topics",
            units::bytes(disk.available_bytes),
            units::bytes(self.total_bytes),
        )
    }

    fn budget_in_bytes(&self) -> String {
        let bytes = units::bytes(self.limit_bytes);
        match self.budget {
            Budget::Bytes(_) => bytes,
            Budget::SharePercent(percent) => format!("{percent}% ({bytes})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::reserve::tests::{SmallDisk, SmallDiskRef};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn gauge(budget: Budget, total_bytes: u64) -> Gauge {
        let options = StoreOptions { budget, ..StoreOptions::default() };
        Gauge::new(&options, Space { total_bytes, available_bytes: 0 })
    }

    /// A store that takes this much, its reserve included, and has the disk for itself.
    fn alone(gauge: &Gauge, used_bytes: u64) -> DiskUse {
        DiskUse { used_bytes, reserve_held_bytes: gauge.reserve_bytes, available_bytes: u64::MAX }
    }

    #[test]
    fn budgets_go_both_ways() {
        for (text, budget) in [
            ("80%", Budget::SharePercent(80)),
            ("100%", Budget::SharePercent(100)),
            ("10GiB", Budget::Bytes(10 * GIB)),
            ("500MB", Budget::Bytes(500_000_000)),
            ("4097", Budget::Bytes(4_097)),
        ] {
            assert_eq!(text.parse(), Ok(budget));
            assert_eq!(budget.to_string(), text);
        }
        assert_eq!("500 MB".parse(), Ok(Budget::Bytes(500_000_000)));
        assert_eq!("80 %".parse(), Ok(Budget::default()));
        for bad in ["", "0", "0%", "101%", "%", "-1%", "1.5GiB", "80 percent"] {
            let error = bad.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn a_share_is_of_the_whole_file_system() {
        assert_eq!(gauge(Budget::SharePercent(80), 100 * GIB).limit_bytes, 80 * GIB);
        assert_eq!(gauge(Budget::Bytes(GIB), 100 * GIB).limit_bytes, GIB);
        assert_eq!(gauge(Budget::SharePercent(100), u64::MAX).limit_bytes, u64::MAX / 100 * 100);
    }

    #[test]
    fn segments_are_small_parts_of_a_small_budget() {
        let fitted = |budget, total_bytes| {
            let options = StoreOptions { budget, ..StoreOptions::default() };
            let options = options.fitted_to_budget(Space { total_bytes, available_bytes: 0 });
            (options.segment_bytes_max, options.preallocate_bytes)
        };
        assert_eq!(fitted(Budget::SharePercent(50), 100 * GIB), (256 * MIB, 16 * MIB));
        assert_eq!(fitted(Budget::Bytes(GIB), 100 * GIB), (128 * MIB, 16 * MIB));
        assert_eq!(fitted(Budget::Bytes(64 * MIB), 100 * GIB), (8 * MIB, 2 * MIB));
    }

    #[test]
    fn the_reserve_is_a_small_part_of_a_small_budget() {
        assert_eq!(gauge(Budget::Bytes(GIB), GIB).reserve_bytes(), 32 * MIB);
        assert_eq!(gauge(Budget::Bytes(64 * MIB), GIB).reserve_bytes(), 4 * MIB);
    }

    #[test]
    fn the_delay_grows_through_the_last_twentieth() {
        let gauge = gauge(Budget::Bytes(4_000 * MIB), 100 * GIB);
        let end = 4_000 * MIB - 32 * MIB;
        let delay_at = |left_bytes: u64| match gauge.decide(alone(&gauge, end - left_bytes), 0) {
            Room::Free => 0,
            Room::Slow { delay_ms, .. } => delay_ms,
            Room::Full { why } => panic!("{why}"),
        };
        assert_eq!([200 * MIB, 200 * MIB - 1, 100 * MIB, 0].map(delay_at), [0, 1, 25, 50]);
        let zones = [(10 * GIB, 512 * MIB), (400 * GIB, GIB), (100 * MIB, 32 * MIB), (16 * MIB, 15 * MIB / 2)];
        for (budget, zone) in zones {
            assert_eq!(super::tests::gauge(Budget::Bytes(budget), GIB).slow_bytes, zone, "of {budget}");
        }
    }

    #[test]
    fn a_refusal_names_the_limit_what_is_used_and_the_way_out() {
        let gauge = gauge(Budget::SharePercent(50), 20 * GIB);
        let disk = DiskUse { used_bytes: 10 * GIB - 40 * MIB, reserve_held_bytes: 32 * MIB, available_bytes: 5 * GIB };
        let Room::Full { why } = gauge.decide(disk, 16 * MIB) else { panic!("there is no room") };
        for part in ["`storage.budget`", "50% (10 GiB)", "raise", "retention", "delete topics", "32 MiB"] {
            assert!(why.contains(part), "{why}");
        }
        let disk = DiskUse { used_bytes: GIB, reserve_held_bytes: 32 * MIB, available_bytes: 20 * MIB };
        let Room::Full { why } = gauge.decide(disk, 16 * MIB) else { panic!("there is no room") };
        for part in ["file system", "20 MiB left", "32 MiB are needed", "20 GiB", "others"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(!why.contains("raise"), "a larger budget would not help: {why}");
    }

    #[test]
    fn what_the_reserve_lacks_is_not_given_to_appends() {
        let gauge = gauge(Budget::Bytes(GIB), 100 * GIB);
        let disk = DiskUse { used_bytes: 0, reserve_held_bytes: 0, available_bytes: 64 * MIB };
        assert!(matches!(gauge.decide(disk, 16 * MIB), Room::Slow { .. }));
        assert!(matches!(gauge.decide(disk, 16 * MIB + 1), Room::Full { .. }));
        let held = DiskUse { reserve_held_bytes: 32 * MIB, ..disk };
        assert!(matches!(gauge.decide(held, 48 * MIB), Room::Slow { .. }));
    }

    #[test]
    fn a_budget_below_what_is_used_is_full() {
        let gauge = gauge(Budget::Bytes(GIB), 100 * GIB);
        assert!(matches!(gauge.decide(alone(&gauge, 2 * GIB), 0), Room::Full { .. }));
    }

    #[test]
    fn a_disk_that_others_fill_and_leave_costs_the_reserve_and_brings_it_back() {
        let disk = SmallDisk::new(200 * MIB);
        let file_system = Arc::new(SmallDiskRef(disk.clone()));
        let options = StoreOptions { preallocate_bytes: MIB, file_system, ..StoreOptions::default() };
        let mut budget = DiskBudget::open(&options, disk.dir.path()).unwrap();
        let reserve_bytes = 160 * MIB / 16;
        assert_eq!(budget.room(0, MIB).unwrap(), Room::Free);
        assert_eq!((budget.reserve.held_bytes(), disk.reserve_bytes()), (reserve_bytes, reserve_bytes));

        disk.set_others(200 * MIB - reserve_bytes);
        for _ in 0..2 {
            let Room::Full { why } = budget.room(0, MIB).unwrap() else { panic!("nothing is left") };
            assert!(why.contains("others"), "{why}");
            assert_eq!((budget.reserve.held_bytes(), disk.available_bytes()), (0, reserve_bytes));
        }
        // What was the reserve's is not the appends'.
        disk.set_others(200 * MIB - reserve_bytes - MIB);
        assert!(matches!(budget.room(0, MIB).unwrap(), Room::Full { .. }));

        disk.set_others(0);
        assert_eq!(budget.room(0, MIB).unwrap(), Room::Free);
        assert_eq!(disk.reserve_bytes(), reserve_bytes);
    }

    #[test]
    fn a_budget_used_up_costs_the_reserve_and_retention_brings_it_back() {
        let disk = SmallDisk::new(200 * MIB);
        let file_system = Arc::new(SmallDiskRef(disk.clone()));
        let options = StoreOptions { preallocate_bytes: MIB, file_system, ..StoreOptions::default() };
        let mut budget = DiskBudget::open(&options, disk.dir.path()).unwrap();
        let limit_bytes = 150 * MIB;
        assert!(matches!(budget.room(limit_bytes - MIB, MIB).unwrap(), Room::Slow { delay_ms: 50, .. }));
        assert_eq!(disk.reserve_bytes(), 10 * MIB);
        assert!(matches!(budget.room(limit_bytes, MIB).unwrap(), Room::Full { .. }));
        assert_eq!(disk.reserve_bytes(), 0);
        assert_eq!(budget.room(limit_bytes / 2, MIB).unwrap(), Room::Free);
        assert_eq!(disk.reserve_bytes(), 10 * MIB);
    }

    /// What happens to a disk.
    #[derive(Debug, Clone)]
    enum Event {
        Append(u64),
        /// An offset commit or a delete: nobody asks the gauge.
        Small(u64),
        Retention(u64),
        OthersTake(u64),
        OthersFree(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..64 * MIB).prop_map(Event::Append),
            1 => (0..MIB / 4).prop_map(Event::Small),
            1 => (0..256 * MIB).prop_map(Event::Retention),
            1 => (0..400 * MIB).prop_map(Event::OthersTake),
            1 => (0..400 * MIB).prop_map(Event::OthersFree),
        ]
    }

    /// A disk with a store on it that asks before it appends.
    struct Disk {
        gauge: Gauge,
        total_bytes: u64,
        used_bytes: u64,
        held_bytes: u64,
        others_bytes: u64,
    }

    impl Disk {
        fn available(&self) -> u64 {
            self.total_bytes - self.used_bytes - self.held_bytes - self.others_bytes
        }

        fn decide(&mut self, wanted_bytes: u64) -> Room {
            let disk = DiskUse {
                used_bytes: self.used_bytes,
                reserve_held_bytes: self.held_bytes,
                available_bytes: self.available(),
            };
            let room = self.gauge.decide(disk, wanted_bytes);
            self.held_bytes = match room {
                Room::Full { .. } => 0,
                Room::Free | Room::Slow { .. } => self.gauge.reserve_bytes,
            };
            room
        }

        fn happen(&mut self, event: &Event) {
            match *event {
                Event::Append(bytes) => {
                    let room = self.decide(bytes);
                    if !matches!(room, Room::Full { .. }) {
                        self.used_bytes += bytes;
                        let gauge = self.gauge;
                        assert!(self.used_bytes <= gauge.limit_bytes - gauge.reserve_bytes);
                        assert!(self.used_bytes + self.others_bytes + gauge.reserve_bytes <= self.total_bytes);
                    }
                }
                Event::Small(bytes) => self.used_bytes += bytes.min(self.available()),
                Event::Retention(bytes) => self.used_bytes = self.used_bytes.saturating_sub(bytes),
                Event::OthersTake(bytes) => self.others_bytes += bytes.min(self.available()),
                Event::OthersFree(bytes) => self.others_bytes = self.others_bytes.saturating_sub(bytes),
            }
        }
    }

    proptest! {
        #[test]
        fn no_append_passes_the_limit_and_space_that_returns_is_free_again(
            budget in prop_oneof![
                (64 * MIB..2 * GIB).prop_map(Budget::Bytes),
                (1u8..=100).prop_map(Budget::SharePercent),
            ],
            events in vec(event(), 1..200),
        ) {
            let total_bytes = 2 * GIB;
            let gauge = gauge(budget, total_bytes);
            let mut disk = Disk { gauge, total_bytes, used_bytes: 0, held_bytes: 0, others_bytes: 0 };
            for event in &events {
                disk.happen(event);
            }
            disk.happen(&Event::Retention(u64::MAX));
            disk.happen(&Event::OthersFree(u64::MAX));
            prop_assert_eq!(disk.decide(0), Room::Free);
        }

        #[test]
        fn less_use_is_never_worse(used in 0..2 * GIB, less in 0..2 * GIB, wanted in 0..64 * MIB) {
            let gauge = gauge(Budget::Bytes(GIB), 4 * GIB);
            let rank = |room: Room| match room {
                Room::Free => 0,
                Room::Slow { delay_ms, .. } => delay_ms,
                Room::Full { .. } => u64::MAX,
            };
            let disk = |used_bytes| DiskUse { available_bytes: 4 * GIB - used_bytes, ..alone(&gauge, used_bytes) };
            let (more, less) = (used, used.saturating_sub(less));
            prop_assert!(rank(gauge.decide(disk(less), wanted)) <= rank(gauge.decide(disk(more), wanted)));
        }
    }
}
