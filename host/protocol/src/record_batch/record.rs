//! A record that owns its bytes.

use std::borrow::Cow;

use bytes::Bytes;

/// A record as programs make and keep it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Its key: decides the partition, and what compaction keeps.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in order; names may repeat.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

impl Record {
    /// A record with key and value.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>, timestamp: i64) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), headers: Vec::new(), timestamp }
    }

    /// A record with a value alone.
    pub fn unkeyed(value: impl Into<Bytes>, timestamp: i64) -> Record {
        Record { key: None, value: Some(value.into()), headers: Vec::new(), timestamp }
    }
}

/// A named value that travels with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name: UTF-8 by convention; a foreign client may have written anything, so it is kept as bytes.
    pub name: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Header {
        Header { name: name.into(), value: Some(value.into()) }
    }

    /// Its name for people.
    #[must_use]
    pub fn name_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }
}
