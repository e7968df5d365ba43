//! Random histories of a datastore, with power cuts, against a model that knows what was flushed.

mod device;
mod history;
mod model;
mod together;

use history::History;
use std::sync::atomic::{AtomicU64, Ordering};

fn run(seed: u64) -> (u64, u64) {
    let mut history = History::new(seed);
    for _ in 0..3 {
        history.run(40);
    }
    history.finish();
    (history.operations, history.cuts)
}

/// Histories from `first` on, by as many threads as there are processors.
fn run_many(first: u64, count: u64) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let done = AtomicU64::new(0);
    let run = |seed| {
        let counts = run(seed);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(5_000) {
            println!("{done} of {count}");
        }
        counts
    };
    let (operations, cuts) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let run = &run;
                scope.spawn(move || {
                    (first + thread..first + count)
                        .step_by(threads as usize)
                        .map(run)
                        .fold((0, 0), |sum, (operations, cuts)| (sum.0 + operations, sum.1 + cuts))
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a history failed; its seed stands above"))
            .fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    });
    println!("{count} histories, {operations} operations, {cuts} power cuts");
}

#[test]
fn nothing_that_was_flushed_is_lost() {
    run_many(1, 500);
}

/// `HISTORIES=100000 FIRST=1 cargo test --release -p tessera-datastore --test histories -- --ignored --nocapture`
#[test]
#[ignore = "takes long; make test-power-cuts runs it"]
fn many_power_cuts() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    run_many(number("FIRST", 1), number("HISTORIES", 100_000));
}
