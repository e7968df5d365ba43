//! Measures the system and prints one line a figure.
#![forbid(unsafe_code)]

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use tessera_tests::{Failure, bench, context::Environment};

/// Boots the system with instructions counted and prints `bench: NAME MEDIAN UNIT min MIN max MAX goal <=GOAL`.
#[derive(Parser)]
struct Arguments {
    /// Only figures whose name begins with this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the figures as a table to this file too.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = Environment::new().and_then(|environment| {
        let figures = bench::run(&environment, &arguments.only, |figure| println!("{}", figure.line()))?;
        if let Some(path) = &arguments.write {
            std::fs::write(path, bench::table(&figures)).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
        }
        Ok(figures)
    });
    match result {
        Ok(figures) => {
            let missed: Vec<&str> = figures.iter().filter(|f| !f.is_good()).map(|f| f.name.as_str()).collect();
            if !missed.is_empty() {
                eprintln!("goals missed: {}", missed.join(", "));
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
