#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((code, text)) = data.split_first() {
        openclaw_supervise::gateway::handoff::read_any(*code, text);
    }
});
