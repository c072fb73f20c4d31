//! `bgctl` as the tests start and kill it: the library's own program, built with whatever the tests are built with.

fn main() -> std::process::ExitCode {
    ctl::program()
}
