//! Engine 2: users' WebAssembly modules on wasmtime, run on batches of records. Plain sync code.
//!
//! Owns the whole life of a plugin: checking what is uploaded, compiling it once, running its instances within limits,
//! and turning what they decide into record batches. Only this crate names wasmtime. Never opens a socket, never
//! touches the log of records, never reads a clock on behalf of a guest.
//!
//! ```text
//! bytes -> validate -> compile/cache -> Plugin          once per upload
//! Plugin + settings -> Transform                        once per deployment
//! Pipeline::run(batch): per stage                       per produced batch
//!     instance.process(section) -> output -> reframe -> the next stage's section
//!     after a fault: pieces, each on a fresh instance, down to the record that is to blame
//! ```
//!
//! Invariants
//! - Nothing a guest returns is used before it was checked against its memory, in 64 bits, and against the limits.
//! - A fault harms the records it is traced to and no others; the instance it happened in never runs again.
//! - The books of every batch balance: each input is kept, dropped, dead-lettered or rejected, once.
//! - The same batch gives the same output on every host, with a fresh instance or a used one, for every guest that
//!   keeps nothing between calls.
//!
//! Start at [`PluginHost`], then [`Pipeline::run`].

mod breaker;
mod cache;
mod clock;
mod compiler;
mod contract;
mod deadline;
mod engines;
mod failure;
mod fault;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guest;
mod host;
mod idle;
mod imports;
mod instance;
mod pipeline;
mod plugin;
mod reframe;
mod scan;
mod settle;
mod slots;
mod stage;
mod stats;
mod trace;
mod transform;
mod usage;
mod validate;
mod worker;

pub use compiler::{Cancel, CompileError, Compiler, InProcess, NativeCode, precompile};
pub use fault::Fault;
pub use host::{PluginHost, PluginHostError, PluginHostOptions};
pub use pipeline::{Pipeline, PipelineError, PipelineInput};
pub use plugin::{InvalidModule, Plugin, PluginError};
pub use settle::{DeadLetter, PipelineOutput, Routed};
pub use trace::{StageTrace, Trace, TraceVerdict, TracedRecord};
pub use transform::{Transform, TransformError};
pub use worker::Worker;
