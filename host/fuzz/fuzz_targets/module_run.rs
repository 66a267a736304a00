//! Gives libFuzzer's bytes to [`fuzz::module_run`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::module_run(data));
