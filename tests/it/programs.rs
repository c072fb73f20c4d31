//! The real programs, as the tests start them: cargo tells only an integration test where they are.

use tests::Programs;

pub(crate) const PROGRAMS: Programs = Programs {
    bgctl: env!("CARGO_BIN_EXE_bgctl-under-test"),
    bgproxy: env!("CARGO_BIN_EXE_bgproxy-under-test"),
    app: env!("CARGO_BIN_EXE_app-under-test"),
};
