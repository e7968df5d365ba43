//! Measures the kernel's paths in TSC ticks, which are instructions where the emulator counts them (QEMU with `-icount shift=0`, Bochs with one processor).

pub mod echo;
mod ipc;
mod virt;

use crate::report::{line, verdict};
use tessera_probe::statistics::{SAMPLES, Summary};
use tessera_rt::{abi::Error, sys};

/// Runs the benchmarks whose names begin with `prefix`.
pub fn run(prefix: &str) {
    let mut problem = None;
    for (name, group) in [("ipc", ipc::run as fn(&Bench) -> Result<(), Error>), ("virt", virt::run)] {
        if prefix.is_empty() || prefix.starts_with(name) || name.starts_with(prefix) {
            if let Err(error) = group(&Bench::new()) {
                problem = Some((name, error));
            }
        }
    }
    match problem {
        None => verdict("bench", None),
        Some((name, error)) => verdict("bench", Some(format_args!("{name}: {}", error.text()))),
    }
}

/// How to measure.
pub struct Bench {
    /// What reading the TSC twice costs.
    pub timer: u64,
}

impl Bench {
    fn new() -> Self {
        let mut samples = [0; SAMPLES];
        let timer = measure(&mut samples, 0, || {});
        Self { timer: timer.median }
    }

    /// Measures `operation` and prints the figure.
    pub fn one(&self, name: &str, goal: u64, operation: impl FnMut()) {
        let mut samples = [0; SAMPLES];
        let summary = measure(&mut samples, self.timer, operation);
        self.print(name, goal, summary);
    }

    /// Prints a figure that was measured elsewhere.
    pub fn print(&self, name: &str, goal: u64, Summary { min, median, max }: Summary) {
        line(format_args!(
            "bench: {name} {median} instructions min {min} max {max} goal <={goal}"
        ));
    }
}

#[inline(always)]
fn measure(samples: &mut [u64; SAMPLES], overhead: u64, mut operation: impl FnMut()) -> Summary {
    for _ in 0..16 {
        operation();
    }
    for sample in samples.iter_mut() {
        let start = sys::tsc();
        operation();
        *sample = sys::tsc().wrapping_sub(start);
    }
    Summary::of(samples, overhead)
}
