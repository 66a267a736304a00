//! The nouns of weir and its native wire: topics, records, offsets, frames, control bodies, error codes.
//!
//! Owns every type that more than one crate speaks of, each written once, and every limit on what comes from
//! outside ([`limits`]). Never does I/O and never reads a clock.
//!
//! Invariants
//! - A name, a batch or a frame that exists as one of these types has been checked ("parse, don't validate").
//! - No length from outside is used for an allocation before it was compared with a limit and with the bytes at hand.
//!
//! Start at [`RecordBatch`] for data, at [`frame`] for the wire.

pub mod control;
pub mod frame;
pub mod limits;
pub mod units;

mod error_code;
mod health;
mod ids;
mod names;
mod produce;
pub mod record_batch;
mod topic;
mod transform;

pub use error_code::*;
pub use health::Health;
pub use ids::*;
pub use names::*;
pub use produce::*;
pub use record_batch::*;
pub use topic::*;
pub use transform::*;
