//! Gives libFuzzer's bytes to [`fuzz::broker_row`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::broker_row(data));
