//! Gives libFuzzer's bytes to [`fuzz::name`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::name(data));
