//! Runs the tests, two at a time, and prints a line for each as it ends.

use crate::{
    Context, Outcome, Result,
    cases::{self, Case},
    context::Environment,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

/// Which tests to run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Only tests whose name contains one of these; empty: all.
    pub filters: Vec<String>,
    /// Tests at the same time.
    pub jobs: usize,
}

impl Selection {
    /// The tests it names.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let wanted = |name: &str| self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()));
        cases::all().into_iter().filter(|case| wanted(case.name)).collect()
    }
}

#[derive(Default)]
struct Totals {
    passed: usize,
    failures: Vec<(&'static str, String)>,
    skipped: usize,
}

/// Runs them; true when none failed.
pub fn run(environment: &Environment, selection: &Selection) -> bool {
    let mut cases = selection.cases();
    // The longest first, so that the last one does not run alone.
    cases.sort_by_key(|case| std::cmp::Reverse(case.minutes));
    let count = cases.len();
    println!(
        "{count} whole-system tests, {} at a time; logs in {}",
        selection.jobs,
        environment.logs.display()
    );
    let queue = Mutex::new(cases.into_iter().collect::<VecDeque<_>>());
    let totals = Mutex::new(Totals::default());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..selection.jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let start = Instant::now();
                    let result = run_one(environment, &case);
                    report(&totals, count, &case, result, start.elapsed().as_secs());
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !totals.failures.is_empty() {
        println!("\nFailures:");
        for (name, text) in &totals.failures {
            println!("  {name}: {text}\n");
        }
    }
    println!(
        "{} passed, {} failed, {} skipped",
        totals.passed,
        totals.failures.len(),
        totals.skipped
    );
    totals.failures.is_empty()
}

fn run_one(environment: &Environment, case: &Case) -> Result<Outcome> {
    let context = Context::new(environment, case.name, case.limit());
    (case.run)(&context)
}

fn report(totals: &Mutex<Totals>, count: usize, case: &Case, result: Result<Outcome>, seconds: u64) {
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
    let (word, detail) = match result {
        Ok(Outcome::Passed) => {
            totals.passed += 1;
            ("ok", String::new())
        }
        Ok(Outcome::Skipped(reason)) => {
            totals.skipped += 1;
            ("skipped", reason)
        }
        Err(failure) => {
            let first = failure.0.lines().next().unwrap_or_default().to_owned();
            totals.failures.push((case.name, failure.0));
            ("FAILED", first)
        }
    };
    let done = totals.passed + totals.skipped + totals.failures.len();
    println!("[{done:3}/{count}] {word:8}{:32} {seconds:5} s  {detail}", case.name);
}
