//! What is promised of any module and of any answer of a guest, as functions that panic where it does not hold.
//!
//! For the fuzz targets alone: behind the feature `fuzzing`, hidden, and no part of the crate's face.

mod answer;

pub use answer::{answer_seeds, guest_output};

use crate::validate;

/// Any bytes as a module that somebody uploads: checked, never compiled. Whether it was taken.
pub fn plugin(wasm: &[u8]) -> bool {
    match validate::check(wasm) {
        Ok(()) => {
            assert!(wasm.starts_with(b"\0asm\x01\0\0\0"), "something else than a module is taken");
            true
        }
        Err(error) => {
            assert!(error.to_string().len() > 10, "a refusal says nothing: {error}");
            false
        }
    }
}
