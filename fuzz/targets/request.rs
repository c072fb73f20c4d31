//! The head of any request: Host, target, framing, and what of it reaches an application.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| proxy::fuzzing::request(bytes));
