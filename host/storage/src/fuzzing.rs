//! What the decoders of files promise of any bytes whatever, as functions that panic where it does not hold.
//!
//! Owns the properties, and sound files to begin from ([`seeds`]). For the fuzz targets alone: behind the feature
//! `fuzzing`, hidden, and no part of the crate's face.
//!
//! Bytes are looked at twice where a checksum guards them: as they are, and with the checksums set right, so that what
//! lies behind is reached too. A checksum tells of accidents; what a file says is believed no further for it.

mod image;
mod index;
mod manifest;
mod parts;
mod records;
mod rows;
mod runs;
pub mod seeds;

pub use self::{
    index::index_file, manifest::manifest, parts::part, records::commit_record, rows::state_row, runs::batch_run,
};

use std::fmt::Debug;

use minicbor::{Decode, Encode};

use crate::record;

/// What decodes is encoded to bytes that decode to the same; the value.
fn round_trip<T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = record::from_slice(bytes)?;
    let again = record::to_vec(&value);
    assert_eq!(record::from_slice::<T>(&again).as_ref(), Some(&value), "its own encoding means something else");
    Some(value)
}

/// An error that names a file and says what is wrong with it.
fn assert_tells(fault: &crate::fault::Fault) {
    let text = fault.text();
    assert!(text.contains('`') && text.len() > 20, "an error says nothing: {text}");
}
