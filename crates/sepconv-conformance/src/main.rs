//! `sepconv-conformance`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sepconv_conformance::cli::main()
}
