//! libFuzzer on [`tidegate_fuzz::targets::nip19`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::targets::nip19(bytes));
