//! Gives libFuzzer's bytes to [`fuzz::commit_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::commit_record(data));
