//! Files of record batches: what `export` writes and `import` reads.
//!
//! ```text
//! PATH/                              a directory for any number of topics
//!   clicks-0/                        TOPIC-PARTITION
//!     00000000000000000000.log       record batches v2, one behind the other, and nothing else;
//!   clicks-1/                        named by the first offset it is for, in 20 digits
//!     00000000000000000420.log
//! ```
//! Both the tree and the files are those of a Kafka broker: its log segments are batches in their wire format
//! (<https://kafka.apache.org/documentation/#recordbatch>), in directories and files named like these
//! (<https://kafka.apache.org/documentation/#log>). So `kafka-dump-log.sh --files FILE` reads an exported file, and a
//! segment that Kafka wrote can be imported; its indexes are not needed. The dump tool goes by the file's name: the
//! digits and `.log` have to stay.
//!
//! Owns names, and the bytes between a file and a batch. Never talks to a broker.
//!
//! Invariants
//! - A file has its name once it is whole and synced; until then it has another one, which `import` refuses.
//! - Of what a file claims, nothing is allocated before it is compared with the limits of `protocol`.
//!
//! Start at [`BatchReader`] to read, at [`Target`] to write.

mod layout;
mod read;
mod write;

pub(crate) use self::{
    layout::{PARTIAL_SUFFIX, partition_of_dir, segment_offset},
    read::{BatchReader, ReadError},
    write::{NewFile, Target},
};
