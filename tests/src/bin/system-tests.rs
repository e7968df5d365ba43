//! Runs the whole-system tests.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use tessera_tests::{
    context::Environment,
    machine::Emulator,
    runner::{Selection, run},
};

/// Boots the system in emulated machines and speaks to it over its serial ports.
#[derive(Parser)]
struct Arguments {
    /// Run only tests whose name contains one of these.
    filters: Vec<String>,
    /// Only on this emulator; without it on both.
    #[arg(long = "machine", value_enum)]
    machines: Vec<Emulator>,
    /// Print the names and stop.
    #[arg(long)]
    list: bool,
    /// Tests at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |emulator: &Emulator| arguments.machines.is_empty() || arguments.machines.contains(emulator);
    let selection = Selection {
        filters: arguments.filters,
        emulators: Emulator::ALL.into_iter().filter(chosen).collect(),
        jobs: arguments.jobs,
    };
    if arguments.list {
        for case in selection.cases() {
            let mark = if case.bochs.is_some() { "QEMU, Bochs" } else { "QEMU" };
            println!("{:34} {mark:12} {}", case.name, case.about);
        }
        return ExitCode::SUCCESS;
    }
    if selection.cases().is_empty() {
        eprintln!("no test of this machine has such a name; --list shows all, and on which machines they run");
        return ExitCode::FAILURE;
    }
    match Environment::new() {
        Ok(environment) if run(&environment, &selection) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
