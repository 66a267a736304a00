//! The crate through its public face, as one program.

mod common;
mod control;
mod damage;
mod kafka_batches;
mod oracle;
mod produced;
mod record_batch;
mod retain;
mod varint;
