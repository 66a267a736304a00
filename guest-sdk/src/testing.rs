//! Runs a plugin natively: the whole way in and out through the ABI's bytes, without WebAssembly.
//!
//! ```
//! # use guest_sdk::{NewValue, Record, guest};
//! fn shout(record: &Record<'_>, value: &mut NewValue<'_>) {
//!     value.push(&record.value().unwrap_or_default().to_ascii_uppercase());
//! }
//! guest! { map: shout }
//!
//! # fn main() {
//! use guest_sdk::testing::{self, Outcome, TestRecord};
//! let outcomes = testing::run::<Guest>("{}", &[TestRecord::from("hey").key("k")]).unwrap();
//! assert_eq!(outcomes, [Outcome::value("HEY")]);
//! # }
//! ```

use abi::{
    Span,
    input::InputHeader,
    output::{Decisions, Output, Patch},
};

use crate::{
    Guest, Instance,
    record::{Batch, push_nullable_bytes, push_varint},
};

/// The topic that tests produce to.
pub const TOPIC: &str = "tests";
/// The timestamp of a record that is given none.
pub const TIMESTAMP: i64 = 1_700_000_000_000;

/// A record for a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRecord {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, name and value.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp.
    pub timestamp: i64,
}

impl TestRecord {
    /// One without a value.
    #[must_use]
    pub fn tombstone() -> Self {
        TestRecord { key: None, value: None, headers: Vec::new(), timestamp: TIMESTAMP }
    }

    /// The same with this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// The same with this timestamp.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }
}

impl<V: Into<Vec<u8>>> From<V> for TestRecord {
    /// A record of this value.
    fn from(value: V) -> Self {
        TestRecord { value: Some(value.into()), ..TestRecord::tombstone() }
    }
}

/// What a plugin did with one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It stays as it is.
    Kept,
    /// It stays with another value.
    Replaced(Option<Vec<u8>>),
    /// It goes.
    Dropped,
    /// These take its place, each with the number of its target.
    Records(Vec<(u16, TestRecord)>),
    /// It failed.
    Failed {
        /// The plugin's number for it.
        code: u16,
        /// Why.
        text: String,
    },
}

impl Outcome {
    /// A new value.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Outcome::Replaced(Some(value.into()))
    }

    /// The new value as text, where there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Outcome::Replaced(Some(value)) => str::from_utf8(value).ok(),
            _ => None,
        }
    }
}

/// Runs a plugin on one batch, with offsets from 0, and returns what it did with each record.
///
/// # Errors
/// The configuration is refused: why.
///
/// # Panics
/// Where the plugin, or the output made for it, breaks the ABI.
pub fn run<G: Guest>(config: &str, records: &[TestRecord]) -> Result<Vec<Outcome>, String> {
    let mut instance = Instance::<G>::new();
    instance.alloc(config.len()).expect("there is memory")[..config.len()].copy_from_slice(config.as_bytes());
    instance.try_init(config.len())?;

    let input = encode(records);
    instance.alloc(input.len()).expect("there is memory")[..input.len()].copy_from_slice(&input);
    // Native addresses have 64 bits; the two buffers get addresses of their own, as far apart as they can be.
    let (input_at, bytes_at) = (0x10, 0x4000_0000_u32);
    let input_ptr = instance.buffers().0.as_ptr();
    let output = instance.process(input.len(), |bytes| if bytes.as_ptr() == input_ptr { input_at } else { bytes_at });
    let output = output.expect("the plugin read the batch").to_vec();

    let (input, bytes) = instance.buffers();
    let at = |span: Span| match span.address.checked_sub(bytes_at) {
        Some(address) => Span { address, ..span }.of(bytes).expect("an address inside the guest's bytes"),
        None => Span { address: span.address - input_at, ..span }.of(input).expect("an address inside the input"),
    };
    Ok(outcomes(&Output::decode(&output, records.len() as u32).expect("an output of the abi"), records.len(), at))
}

/// What a plugin says of itself, as JSON.
///
/// # Panics
/// Where it is not JSON: the schema given to [`guest!`](crate::guest) is wrong.
#[must_use]
pub fn describe<G: Guest>() -> serde_json::Value {
    serde_json::from_slice(Instance::<G>::new().describe()).expect("the schema is JSON")
}

fn outcomes<'m>(output: &Output<'_>, record_count: usize, at: impl Fn(Span) -> &'m [u8]) -> Vec<Outcome> {
    let kept = |kept: bool| if kept { Outcome::Kept } else { Outcome::Dropped };
    let mut outcomes: Vec<Outcome> = match output.decisions {
        Decisions::KeepAll => vec![Outcome::Kept; record_count],
        Decisions::DropAll => vec![Outcome::Dropped; record_count],
        Decisions::Bitmap(bitmap) => bitmap.iter().map(kept).collect(),
        Decisions::Patch { kept: bitmap, patches } => {
            let mut patches = patches.iter();
            let patched = bitmap.iter().map(|is_kept| match is_kept.then(|| patches.next()).flatten() {
                None | Some(Patch::Unchanged) => kept(is_kept),
                Some(Patch::Null) => Outcome::Replaced(None),
                Some(Patch::Value(span)) => Outcome::value(at(span)),
            });
            patched.collect()
        }
        Decisions::Records(records) => {
            let mut outcomes = vec![Outcome::Records(Vec::new()); record_count];
            for entry in records.iter() {
                if let Outcome::Records(records) = &mut outcomes[entry.source as usize] {
                    records.push((entry.target, decode(at(entry.body))));
                }
            }
            outcomes
        }
    };
    for failure in output.failures.iter() {
        let text = String::from_utf8(at(failure.text).to_vec()).expect("a text of a failure is UTF-8");
        outcomes[failure.record as usize] = Outcome::Failed { code: failure.code, text };
    }
    outcomes
}

/// An input of these records: topic [`TOPIC`], partition 0, offsets from 0.
#[must_use]
pub fn encode(records: &[TestRecord]) -> Vec<u8> {
    let mut section = Vec::new();
    for (offset_delta, record) in records.iter().enumerate() {
        let mut body = vec![0];
        push_varint(&mut body, record.timestamp - TIMESTAMP);
        push_varint(&mut body, offset_delta as i64);
        push_nullable_bytes(&mut body, record.key.as_deref());
        push_nullable_bytes(&mut body, record.value.as_deref());
        push_varint(&mut body, record.headers.len() as i64);
        for (name, value) in &record.headers {
            push_nullable_bytes(&mut body, Some(name.as_bytes()));
            push_nullable_bytes(&mut body, value.as_deref());
        }
        push_nullable_bytes(&mut section, Some(&body));
    }
    header(records.len() as u32, section)
}

/// A record from its body.
fn decode(body: &[u8]) -> TestRecord {
    let mut section = Vec::new();
    push_nullable_bytes(&mut section, Some(body));
    let input = header(1, section);
    let batch = Batch::decode(&input).expect("an input of the abi");
    let record = batch.records().next().expect("one record").expect("a record's body");
    let headers = record.headers().iter().map(|header| {
        let name = String::from_utf8(header.name.to_vec()).expect("a header's name is UTF-8");
        (name, header.value.map(<[u8]>::to_vec))
    });
    TestRecord {
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: headers.collect(),
        timestamp: record.timestamp(),
    }
}

fn header(record_count: u32, section: Vec<u8>) -> Vec<u8> {
    let header = InputHeader {
        record_count,
        base_timestamp: TIMESTAMP,
        base_offset: 0,
        attributes: 0,
        partition: 0,
        topic: TOPIC.as_bytes(),
    };
    let mut input = vec![0; InputHeader::encoded_len(TOPIC.len())];
    header.encode(&mut input).expect("the buffer has the header's length");
    input.extend_from_slice(&section);
    input
}
