//! Gives libFuzzer's bytes to [`fuzz::batch_run`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::batch_run(data));
