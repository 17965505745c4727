//! What git tells the hook of a push.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trackbed_readers::push(bytes));
