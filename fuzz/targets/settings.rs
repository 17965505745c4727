//! Files of settings, by their names.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trackbed_readers::settings(bytes));
