//! Runs the whole-system tests.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use tessera_tests::{
    context::Environment,
    runner::{Selection, run},
};

/// Boots the system in emulated machines and speaks to it over its serial ports.
#[derive(Parser)]
struct Arguments {
    /// Run only tests whose name contains one of these.
    filters: Vec<String>,
    /// Print the names and stop.
    #[arg(long)]
    list: bool,
    /// Tests at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let selection = Selection {
        filters: arguments.filters,
        jobs: arguments.jobs,
    };
    if arguments.list {
        for case in selection.cases() {
            println!("{:34} {}", case.name, case.about);
        }
        return ExitCode::SUCCESS;
    }
    if selection.cases().is_empty() {
        eprintln!("no test has such a name; --list shows all");
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
