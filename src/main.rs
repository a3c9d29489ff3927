use std::process::ExitCode;

use actscope::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // For panics; errors are printed as one sentence.
    let _ = color_eyre::install();
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::say(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
