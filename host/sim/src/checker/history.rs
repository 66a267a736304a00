//! A history: what clients of a broker did and saw, in one order. As JSON lines it can be kept, and judged again.
//!
//! ```text
//! {"partitions":[{"name":"orders/0","dead_letters":1},{"name":"orders.dlq/0"}]}
//! {"at_us":10,"client":0,"what":{"send":{"partition":0,"first":0,"fates":["k","d"]}}}
//! {"at_us":41,"client":0,"what":{"refused":{"partition":0,"first":0,"count":2}}}
//! ```
//! The order of the events is one that agrees with time: a question stands before whatever happened after it was asked,
//! and an answer after whatever happened before it was there. A recorder that appends under a lock gives just that.
//!
//! Start at [`History`] and [`What`].

use std::fmt;

use protocol::Books;
use serde::{Deserialize, Serialize};

/// What clients did and saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The partitions; events name them by index.
    pub partitions: Vec<Partition>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// A partition that events speak of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// For people.
    pub name: String,
    /// Where its dead letters go: index of another partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<u32>,
}

/// Something a client did or saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the beginning, on a clock that only goes forward. For people: the order of events counts.
    pub at_us: u64,
    /// Who. One that sends is a producer, and keeps its number for as long as its records have an order.
    pub client: u32,
    /// What.
    pub what: What,
}

/// Names a record for ever: it is written into the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u64)", into = "(u32, u32, u64)")]
pub struct RecordId {
    /// Who sent it.
    pub producer: u32,
    /// To which partition.
    pub partition: u32,
    /// As which of this producer's to this partition: 0, 1, 2, ...
    pub number: u64,
}

/// A record at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, Option<RecordId>)", into = "(u64, Option<RecordId>)")]
pub struct Seen {
    /// Where.
    pub offset: u64,
    /// Which; `None` when its bytes are none that were ever sent.
    pub record: Option<RecordId>,
}

/// What the topic's transforms do with a record, if it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is stored.
    #[serde(rename = "k")]
    Kept,
    /// It leaves a gap.
    #[serde(rename = "d")]
    Dropped,
    /// It fails, and goes to the partition's dead letters.
    #[serde(rename = "l")]
    DeadLettered,
    /// It fails, and its producer is told.
    #[serde(rename = "r")]
    Rejected,
}

/// See [`Event`]. Ranges of records are numbers of the client's own, for that partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Records are handed over; more than one at a time are one batch, stored as a whole or not at all.
    Send {
        /// Where to.
        partition: u32,
        /// Number of the first one.
        first: u64,
        /// What is to become of each.
        fates: Vec<Fate>,
    },
    /// They are acknowledged.
    Ack {
        /// Where they went.
        partition: u32,
        /// Number of the first one.
        first: u64,
        /// How many.
        count: u64,
        /// Offset of the first one.
        base_offset: u64,
        /// Offset behind the last one.
        next_offset: u64,
        /// What became of them.
        #[serde(with = "books_as_list")]
        books: Books,
    },
    /// They are refused for good, or were never sent on.
    Refused {
        /// Where they were to go.
        partition: u32,
        /// Number of the first one.
        first: u64,
        /// How many.
        count: u64,
    },
    /// There will be no answer: they may be stored or not. Sends without any answer are the same.
    Unknown {
        /// Where they were to go.
        partition: u32,
        /// Number of the first one.
        first: u64,
        /// How many.
        count: u64,
    },
    /// A reader begins anew, or elsewhere: at this offset, or wherever its first read says.
    Seek {
        /// In which partition.
        partition: u32,
        /// Where.
        to: Option<u64>,
    },
    /// A reader was shown what lies between two offsets: these records, and nothing else.
    Read {
        /// Of which partition.
        partition: u32,
        /// From here.
        from: u64,
        /// Up to here.
        next_offset: u64,
        /// What was there.
        records: Vec<Seen>,
    },
    /// Somebody asks where a partition begins or ends.
    Ask {
        /// Which one.
        partition: u32,
    },
    /// The answer to the client's last question: where it ends.
    Watermark {
        /// Which one.
        partition: u32,
        /// The first offset that cannot be read yet.
        offset: u64,
    },
    /// The answer to the client's last question: where it begins.
    LogStart {
        /// Which one.
        partition: u32,
        /// The first offset that is kept.
        offset: u64,
    },
    /// What the client's side says became of all its records that were acknowledged so far.
    Total {
        /// The sum.
        #[serde(with = "books_as_list")]
        books: Books,
    },
    /// What is there in the end, a part after the other, from the log's start to its end.
    Final {
        /// Of which partition.
        partition: u32,
        /// From here.
        from: u64,
        /// Up to here.
        next_offset: u64,
        /// What is there.
        records: Vec<Seen>,
    },
}

/// A line that is no part of a history.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is no part of a history")]
pub struct BadLine {
    line: usize,
    #[source]
    cause: serde_json::Error,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head<P> {
    partitions: P,
}

impl History {
    /// The history as JSON lines.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let head = json(&Head { partitions: &self.partitions });
        std::iter::once(head).chain(self.events.iter().map(json))
    }

    /// Reads what [`History::lines`] wrote.
    ///
    /// # Errors
    /// With the first line that is not understood.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<History, BadLine> {
        let mut history = History::default();
        for (index, line) in lines.into_iter().enumerate() {
            let bad = |cause| BadLine { line: index + 1, cause };
            if index == 0 {
                history.partitions = serde_json::from_str::<Head<_>>(line).map_err(bad)?.partitions;
            } else {
                history.events.push(serde_json::from_str(line).map_err(bad)?);
            }
        }
        Ok(history)
    }

    pub(super) fn partition_name(&self, index: u32) -> String {
        self.partitions.get(index as usize).map_or_else(|| format!("#{index}"), |partition| partition.name.clone())
    }

    pub(super) fn dead_letters_of(&self, partition: u32) -> Option<u32> {
        self.partitions.get(partition as usize)?.dead_letters
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, names and lists of them are JSON")
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.producer, self.partition, self.number)
    }
}

impl From<(u32, u32, u64)> for RecordId {
    fn from((producer, partition, number): (u32, u32, u64)) -> Self {
        RecordId { producer, partition, number }
    }
}

impl From<RecordId> for (u32, u32, u64) {
    fn from(RecordId { producer, partition, number }: RecordId) -> Self {
        (producer, partition, number)
    }
}

impl From<(u64, Option<RecordId>)> for Seen {
    fn from((offset, record): (u64, Option<RecordId>)) -> Self {
        Seen { offset, record }
    }
}

impl From<Seen> for (u64, Option<RecordId>) {
    fn from(Seen { offset, record }: Seen) -> Self {
        (offset, record)
    }
}

/// Books as `[records_in, kept, stored, dropped, dead_lettered, rejected]`.
mod books_as_list {
    use protocol::Books;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(books: &Books, serializer: S) -> Result<S::Ok, S::Error> {
        let Books { records_in, kept, stored, dropped, dead_lettered, rejected } = *books;
        [records_in, kept, stored, dropped, dead_lettered, rejected].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Books, D::Error> {
        let [records_in, kept, stored, dropped, dead_lettered, rejected] = Deserialize::deserialize(deserializer)?;
        Ok(Books { records_in, kept, stored, dropped, dead_lettered, rejected })
    }
}
