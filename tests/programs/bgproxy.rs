//! `bgproxy` as the tests start and kill it: the library's own program, built with whatever the tests are built with.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    proxy::program::run(std::env::args_os())
}
