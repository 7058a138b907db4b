#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| unstall_fuzz::topics_peer::run(input));
