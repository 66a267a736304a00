//! Gives libFuzzer's bytes to [`fuzz::plugin`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::plugin(data));
