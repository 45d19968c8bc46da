#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    openclaw_supervise::platform::proc::read_any(data);
});
