//! What is promised of any module and of any answer of a guest, as functions that panic where it does not hold.
//!
//! For the fuzz targets alone: behind the feature `fuzzing`, hidden, and no part of the crate's face.

mod answer;

pub use answer::{answer_seeds, guest_output};

use crate::{precompile, validate};

/// Modules up to here are compiled, too.
const COMPILED_BYTES_MAX: usize = 4 << 10;

/// Any bytes as a module that somebody uploads: checked, and compiled if it is small. Whether it was taken.
pub fn plugin(wasm: &[u8]) -> bool {
    match validate::check(wasm) {
        Ok(()) => {
            assert!(wasm.starts_with(b"\0asm\x01\0\0\0"), "something else than a module is taken");
            if wasm.len() <= COMPILED_BYTES_MAX {
                precompile(wasm).expect("what passes the checks can be compiled");
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().len() > 10, "a refusal says nothing: {error}");
            false
        }
    }
}
