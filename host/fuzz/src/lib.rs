//! What weir does with bytes from outside, as functions that panic where a promise does not hold: one per fuzz target.
//!
//! Owns the targets ([`TARGETS`]), the properties they hold the decoders to, and the inputs they begin from
//! (`corpus/TARGET/`: made by [`Target::seeds`], and whatever was found since). The programs in `fuzz_targets/` hand
//! libFuzzer's bytes to these functions; `tests/corpus.rs` hands them the corpus, on a stable toolchain and without
//! libFuzzer. Decoders that are private to a crate have their functions there, in a module `fuzzing` behind a feature.
//!
//! ```text
//! cargo install cargo-fuzz                       # once; libFuzzer needs a C++ compiler
//! cargo xtask fuzz [--seconds 60] [TARGET...]    # every target in turn, or some
//! cargo test -p weir-fuzz                        # the corpus, and simple changes of it
//! cargo test -p weir-fuzz --test corpus -- --ignored keep_seeds      # writes what `seeds` gives
//! ```
//! An input that broke a target is kept in its corpus when what it found is mended.
//!
//! Invariants
//! - A target is deterministic, and what it allocates is bounded ([`allocations`]) whatever it is given.
//! - What decodes is encoded again to the same meaning; an error says something.
//!
//! Names are fuzzed as far as there are any: topics, plugins and transforms. Principals and access rules have no type of
//! their own yet.

pub mod allocations;
#[path = "../../cli/src/batch_file/read.rs"]
mod batch_reader;
mod batches;
mod frames;
mod import;
mod modules;
mod names;
mod targets;

pub use self::{
    batches::{batch_reencode, record_batch},
    frames::{control_body, frame},
    import::import_file,
    modules::module_run,
    names::{config, name},
    targets::*,
};
