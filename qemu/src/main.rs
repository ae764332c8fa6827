//! `skink`: the command. Everything it does is in the library `skink_tool`.

use std::process::ExitCode;

fn main() -> ExitCode {
    skink_tool::cli::main()
}
