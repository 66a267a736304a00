//! Gives libFuzzer's bytes to [`fuzz::batch_reencode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::batch_reencode(data));
