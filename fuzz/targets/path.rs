//! Paths with dots in any writing, below any prefix.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| proxy::fuzzing::path(input.0, input.1));
