//! Who asks git for what.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trackbed_readers::git_request(bytes));
