//! Requests of callers, as the edge reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trackbed_readers::request(bytes));
