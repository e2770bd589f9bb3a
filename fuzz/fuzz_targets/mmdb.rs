//! libFuzzer on [`tidegate_fuzz::targets::mmdb`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::targets::mmdb(bytes));
