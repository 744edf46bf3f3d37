//! The program `tarragon`.

fn main() -> std::process::ExitCode {
    tarragon::cli::main()
}
