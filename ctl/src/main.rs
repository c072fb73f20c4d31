//! The program `bgctl`: a thin door to the library.

fn main() -> std::process::ExitCode {
    ctl::run(std::env::args_os(), &ctl::ui::Ui::terminal()).into()
}
