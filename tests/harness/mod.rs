//! The harness: fakes, clients and load that a test is written with.
