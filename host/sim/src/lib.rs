//! Power cuts and disk faults on the real store, in memory: thousands of them in a minute, each followed by a comparison
//! of everything that was promised with everything that is there.
//!
//! Owns a disk that notes every call ([`disk`]), the workloads ([`workload`]) and the promises ([`invariants`]). The store
//! is the real one with its threads, which take turns as the seed says ([`schedule`]): a seed is one run, and always the
//! same; the journal of calls is the truth about it.
//!
//! ```text
//! seed -> workload -> store -> SimDisk: journal of calls, with the positions of submits and answers
//!                                 |
//!                cut at a position: what was not synced is kept, lost, or torn
//!                                 |
//!            open, compare with what may be there, go on, close, open, compare -> cut that journal, too
//! ```
//!
//! Start at [`run::run_seed`].

pub mod batches;
#[cfg(feature = "broker")]
pub mod broker;
pub mod checker;
pub mod clock;
pub mod damage;
pub mod disk;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod model;
pub mod observed;
pub mod records;
pub mod rng;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod session;
pub mod shrink;
pub mod tally;
pub mod threads;
pub mod workload;
