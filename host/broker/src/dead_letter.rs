//! Dead letters: the original record, and headers that say why it did not get through.
//!
//! Owns the name of a dead letter topic and of the headers. The record keeps key, value, headers and timestamp as they
//! were produced; it is not masked, so its topic deserves rights and a retention of its own.
//!
//! | header | value |
//! | --- | --- |
//! | `weir.dlq.transform` | name of the transform that failed |
//! | `weir.dlq.plugin` | SHA-256 of its plugin, in hex |
//! | `weir.dlq.topic` | topic the record was produced to |
//! | `weir.dlq.partition` | number of the partition there |
//! | `weir.dlq.offset` | offset the record had there |
//! | `weir.dlq.code` | the plugin's code, or one of `abi::HostCode`, in decimals |
//! | `weir.dlq.text` | the reason |
//! | `weir.dlq.backtrace` | where the guest trapped, when it did |
//!
//! Numbers are decimal text. Values are cut so that a record grows by at most
//! [`DEAD_LETTER_HEADER_BYTES_MAX`].

use bytes::Bytes;
use protocol::{
    Header, NameError, Offset, Record, TopicConfig, TopicName, TopicPartition,
    limits::{DEAD_LETTER_HEADER_BYTES_MAX, DEAD_LETTER_TEXT_BYTES_PER_BATCH, GUEST_TEXT_BYTES_MAX, HEADERS_MAX},
};
use transform::DeadLetter;

/// How many headers a dead letter gets.
const HEADER_COUNT: usize = 8;

/// What is left of text and backtrace of each further record once a batch has used up its room for them.
const SHORT_TEXT_BYTES: usize = 200;

/// The dead letter topic of a topic.
///
/// # Errors
/// When its name would be too long.
pub(crate) fn topic_of(topic: &TopicName) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{topic}.dlq"))
}

/// The record limit of the dead letter topic of a topic with this one.
pub(crate) fn max_record_bytes(of_topic: u32) -> u32 {
    of_topic.saturating_add(DEAD_LETTER_HEADER_BYTES_MAX as u32)
}

/// Settings of a new dead letter topic.
pub(crate) fn config(of_topic: &TopicConfig) -> TopicConfig {
    TopicConfig { max_record_bytes: max_record_bytes(of_topic.max_record_bytes), ..TopicConfig::default() }
}

/// Writes the dead letters of one batch.
#[derive(Debug)]
pub(crate) struct DeadLetters<'a> {
    pub(crate) place: &'a TopicPartition,
    pub(crate) base_offset: Offset,
    text_bytes_left: usize,
}

impl<'a> DeadLetters<'a> {
    pub(crate) fn new(place: &'a TopicPartition, base_offset: Offset) -> DeadLetters<'a> {
        DeadLetters { place, base_offset, text_bytes_left: DEAD_LETTER_TEXT_BYTES_PER_BATCH }
    }

    /// The record with the headers that say why.
    pub(crate) fn write(&mut self, letter: DeadLetter) -> Record {
        let DeadLetter { source, transform, plugin, code, text, backtrace, mut record } = letter;
        let text = self.cut(text);
        let backtrace = backtrace.map(|backtrace| self.cut(backtrace));
        // A record may have every header it is allowed; then its last ones make room.
        record.headers.truncate(HEADERS_MAX - HEADER_COUNT);
        let offset = self.base_offset.plus(source.into());
        record.headers.extend([
            header("weir.dlq.transform", transform.as_str().to_owned()),
            header("weir.dlq.plugin", plugin.to_string()),
            header("weir.dlq.topic", self.place.topic.as_str().to_owned()),
            header("weir.dlq.partition", self.place.partition.to_string()),
            header("weir.dlq.offset", offset.to_string()),
            header("weir.dlq.code", code.to_string()),
            header("weir.dlq.text", text),
        ]);
        record.headers.extend(backtrace.map(|backtrace| header("weir.dlq.backtrace", backtrace)));
        record
    }

    /// A batch of many small records must not become one of many long reasons: past its room, they are cut short.
    fn cut(&mut self, text: String) -> String {
        let room = if self.text_bytes_left < text.len() { SHORT_TEXT_BYTES } else { GUEST_TEXT_BYTES_MAX };
        let text = cut_at(text, room);
        self.text_bytes_left = self.text_bytes_left.saturating_sub(text.len());
        text
    }
}

/// At most the first `bytes` of a text, whole characters.
pub(crate) fn cut_at(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

fn header(name: &'static str, value: String) -> Header {
    Header::new(Bytes::from_static(name.as_bytes()), value)
}

// Both long texts, two names, a hash, three numbers and the headers' own names and lengths fit.
const _: () =
    assert!(2 * GUEST_TEXT_BYTES_MAX + 2 * protocol::limits::NAME_BYTES_MAX + 64 + 512 <= DEAD_LETTER_HEADER_BYTES_MAX);

#[cfg(test)]
mod tests {
    use protocol::{PluginHash, TransformName, limits::NAME_BYTES_MAX};

    use super::*;

    fn letter(text: &str, backtrace: Option<String>) -> DeadLetter {
        DeadLetter {
            source: 3,
            transform: TransformName::new(&"t".repeat(NAME_BYTES_MAX)).unwrap(),
            plugin: PluginHash([7; 32]),
            code: u16::MAX,
            text: text.to_owned(),
            backtrace,
            record: Record::new("key", "value", 5),
        }
    }

    #[test]
    fn a_dead_letter_never_outgrows_its_room_and_a_flood_of_them_is_cut_short() {
        let place = TopicPartition { topic: TopicName::new(&"x".repeat(NAME_BYTES_MAX)).unwrap(), partition: u32::MAX };
        let mut letters = DeadLetters::new(&place, Offset(u64::MAX >> 2));
        let long = "ä".repeat(GUEST_TEXT_BYTES_MAX);
        for number in 0..1_000 {
            let record = letters.write(letter(&long, Some(long.clone())));
            let value = |header: &Header| header.value.as_ref().map_or(0, Bytes::len);
            // Two lengths of at most five bytes go with each header.
            let grown: usize = record.headers.iter().map(|header| header.name.len() + value(header) + 10).sum();
            assert!(grown <= DEAD_LETTER_HEADER_BYTES_MAX);
            assert!(number < 500 || grown < 2_000, "after a while, texts are short");
        }
    }

    #[test]
    fn a_record_with_all_headers_it_may_have_still_says_why() {
        let place = TopicPartition { topic: TopicName::new("x").unwrap(), partition: 0 };
        let mut full = letter("why", None);
        full.record.headers = vec![header("own", String::new()); HEADERS_MAX];
        let record = DeadLetters::new(&place, Offset(0)).write(full);
        assert!(record.headers.len() <= HEADERS_MAX);
        assert!(record.headers.iter().any(|header| header.name == "weir.dlq.text"));
    }
}
