//! Gives libFuzzer's bytes to [`fuzz::control_body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::control_body(data));
