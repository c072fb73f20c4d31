//! The program `bgctl`: a thin door to the library.

fn main() -> std::process::ExitCode {
    ctl::program()
}
