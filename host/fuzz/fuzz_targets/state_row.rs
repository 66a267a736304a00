//! Gives libFuzzer's bytes to [`fuzz::state_row`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::state_row(data));
