#![no_main]

#[path = "../properties.rs"]
#[expect(dead_code, reason = "one of them is used")]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::config(data));
