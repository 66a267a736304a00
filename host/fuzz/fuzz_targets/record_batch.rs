//! Gives libFuzzer's bytes to [`fuzz::record_batch`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::record_batch(data));
