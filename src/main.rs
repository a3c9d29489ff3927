use std::io::Write;
use std::process::ExitCode;

use actscope::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // For panics; an error is one sentence.
    let _ = color_eyre::install();
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics when nobody listens.
            let _ = writeln!(std::io::stderr(), "{}", cli::report(&error));
            ExitCode::from(error.exit_code())
        }
    }
}
