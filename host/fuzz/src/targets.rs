//! The table of targets, and those whose functions lie in other crates.

use crate::{allocations::bounded, batches, frames, import, modules, names};

/// Named inputs.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its function, its program, and its folder in the corpus.
    pub name: &'static str,
    /// Takes any bytes, and panics where a promise does not hold.
    pub run: fn(&[u8]),
    /// Sound inputs to begin from.
    pub seeds: fn() -> Seeds,
}

macro_rules! targets {
    ($($name:ident: $seeds:expr,)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: crate::$name, seeds: $seeds },)*];
    };
}

targets! {
    record_batch: batches::seeds,
    batch_reencode: batches::seeds,
    frame: frames::frame_seeds,
    control_body: frames::control_seeds,
    name: names::name_seeds,
    config: names::config_seeds,
    part: storage::fuzzing::seeds::part,
    commit_record: storage::fuzzing::seeds::commit_record,
    index_file: storage::fuzzing::seeds::index_file,
    manifest: storage::fuzzing::seeds::manifest,
    state_row: storage::fuzzing::seeds::state_row,
    batch_run: batches::seeds,
    broker_row: broker::fuzzing::broker_row_seeds,
    guest_output: transform::fuzzing::answer_seeds,
    plugin: plugin_seeds,
    import_file: import::seeds,
    module_run: modules::seeds,
}

/// What a decoder may hold of this many bytes: some copies, each CBOR byte as a row of some hundred, and tables.
const fn memory_of(data: &[u8]) -> usize {
    (1 << 20) + 512 * data.len()
}

macro_rules! elsewhere {
    ($($(#[$doc:meta])* $name:ident = $function:path;)*) => {
        $($(#[$doc])*
        pub fn $name(data: &[u8]) {
            bounded(memory_of(data), || $function(data));
        })*
    };
}

elsewhere! {
    /// Pages of a segment's file, the parts on them, and the commit records in those.
    part = storage::fuzzing::part;
    /// Commit records, segments' headers, rows of snapshots.
    commit_record = storage::fuzzing::commit_record;
    /// Index files.
    index_file = storage::fuzzing::index_file;
    /// Manifests of backups.
    manifest = storage::fuzzing::manifest;
    /// Checked rows of the state, format rows, names of files.
    state_row = storage::fuzzing::state_row;
    /// Runs of record batches, as far as the log looks at them.
    batch_run = storage::fuzzing::batch_run;
    /// Rows of the catalog and of producers' windows.
    broker_row = broker::fuzzing::broker_row;
}

/// What a guest returns for a batch, carried out.
pub fn guest_output(data: &[u8]) {
    // Records may name the same bytes of the guest's memory over and over, up to what one batch may return.
    bounded(memory_of(data) + 4 * protocol::limits::GUEST_OUTPUT_BYTES_MAX, || transform::fuzzing::guest_output(data));
}

/// Modules as they are uploaded; checked, and compiled where they are small.
pub fn plugin(data: &[u8]) {
    bounded((64 << 20) + 512 * data.len(), || transform::fuzzing::plugin(data));
}

/// The smallest module that is taken, and two that are not. (`wat` makes modules for tests; these were made by hand, so
/// that the targets need nothing of it.)
fn plugin_seeds() -> Seeds {
    const HEAD: &[u8] = b"\0asm\x01\0\0\0";
    const TYPES: &[u8] = b"\x01\x10\x03\x60\x00\x01\x7f\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7f\x01\x7e";
    const FUNCTIONS: &[u8] = b"\x03\x04\x03\x00\x01\x02";
    const MEMORY: &[u8] = b"\x05\x03\x01\x00\x01";
    const CODE: &[u8] = b"\x0a\x10\x03\x04\x00\x41\x01\x0b\x04\x00\x41\x08\x0b\x04\x00\x42\x7f\x0b";
    let names: [(&[u8], [u8; 2]); 4] =
        [(b"memory", [2, 0]), (b"weir_abi_version", [0, 0]), (b"weir_alloc", [0, 1]), (b"weir_process", [0, 2])];
    let exports: Vec<u8> =
        names.iter().flat_map(|(name, what)| [&[name.len() as u8][..], name, what].concat()).collect();
    let exports = [&[7, exports.len() as u8 + 1, 4][..], &exports].concat();
    vec![
        ("least", [HEAD, TYPES, FUNCTIONS, MEMORY, &exports, CODE].concat()),
        ("no-exports", [HEAD, TYPES, FUNCTIONS, MEMORY, CODE].concat()),
        ("component", b"\0asm\x0d\0\x01\0".to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_module_is_taken_and_the_others_are_not() {
        let taken = plugin_seeds().into_iter().map(|(_, wasm)| transform::fuzzing::plugin(&wasm));
        assert_eq!(taken.collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn every_target_has_its_program_and_every_program_its_target() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
        let mut programs: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        programs.sort();
        names.sort_unstable();
        assert_eq!(programs, names);
    }
}
