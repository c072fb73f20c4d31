//! The codec against any answer, and against what hyper reads in the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| proxy::fuzzing::answer(input.1, input.0));
