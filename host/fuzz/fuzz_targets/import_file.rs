//! Gives libFuzzer's bytes to [`fuzz::import_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::import_file(data));
