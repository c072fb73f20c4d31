//! The program `bgproxy`: a thin door to the library.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    proxy::program::run(std::env::args_os())
}
