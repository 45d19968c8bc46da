#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    openclaw_supervise::commands::doctor::read_any(&String::from_utf8_lossy(data));
});
