//! Rows of the state tables: one version byte, then CBOR.
//!
//! Owns how a row says which layout it has. A row of a newer layout is refused by name, never guessed at.

use minicbor::{Decode, Encode};

/// A stored row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Nothing is there.
    #[error("row is empty")]
    Empty,
    /// Written by a newer broker.
    #[error("row has layout version {found}, this broker knows {known}; start a newer `weir`")]
    Newer {
        /// What it says.
        found: u8,
        /// What this broker knows.
        known: u8,
    },
    /// Not what its version says.
    #[error("row is not valid")]
    Invalid(#[source] minicbor::decode::Error),
}

/// A row of layout `version`.
pub(crate) fn encode<T: Encode<()>>(version: u8, row: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    minicbor::encode(row, &mut bytes).expect("encoding into memory cannot fail");
    bytes
}

/// Reads a row of layout `version`, the newest known.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(version: u8, row: &'b [u8]) -> Result<T, RowError> {
    let (found, body) = row.split_first().ok_or(RowError::Empty)?;
    if *found != version {
        return Err(RowError::Newer { found: *found, known: version });
    }
    minicbor::decode(body).map_err(RowError::Invalid)
}
