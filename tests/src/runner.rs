//! Runs the tests, two at a time, and prints a line for each as soon as it has ended on every emulator.

use crate::{
    Context, Outcome, Result,
    cases::{self, Case},
    context::Environment,
    machine::Emulator,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Which tests to run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Only tests whose name contains one of these; empty: all.
    pub filters: Vec<String>,
    /// Only on these.
    pub emulators: Vec<Emulator>,
    /// Tests at the same time.
    pub jobs: usize,
}

impl Selection {
    /// The tests it names.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let wanted = |name: &str| {
            let all = self.filters.is_empty() && !cases::is_only_named(name);
            all || self.filters.iter().any(|f| name.contains(f.as_str()))
        };
        let runs = |case: &Case| self.emulators.iter().any(|&e| case.minutes(e).is_some());
        let all = cases::all().into_iter();
        all.filter(|case| wanted(case.name) && runs(case)).collect()
    }

    /// What there is to do: numbers of cases, each with an emulator. The longest first, so that the last one does not run alone.
    fn runs(&self, cases: &[Case]) -> VecDeque<(usize, Emulator)> {
        let mut runs = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            for &emulator in &self.emulators {
                if let Some(minutes) = case.minutes(emulator) {
                    runs.push((minutes, number, emulator));
                }
            }
        }
        runs.sort_by_key(|&(minutes, ..)| std::cmp::Reverse(minutes));
        runs.into_iter().map(|(_, number, emulator)| (number, emulator)).collect()
    }
}

/// How a run ended, and after how many seconds.
struct Ended {
    result: Result<Outcome>,
    seconds: u64,
}

impl Ended {
    fn cell(&self) -> String {
        let word = match &self.result {
            Ok(Outcome::Passed) => "ok",
            Ok(Outcome::Skipped(_)) => "skipped",
            Err(_) => "FAILED",
        };
        format!("{word:7}{:5} s", self.seconds)
    }

    /// What has to be said beside the result.
    fn detail(&self) -> Option<&str> {
        match &self.result {
            Ok(Outcome::Passed) => None,
            Ok(Outcome::Skipped(reason)) => Some(reason),
            Err(failure) => failure.0.lines().next(),
        }
    }
}

/// A test's line: a column for each emulator.
struct Row {
    name: &'static str,
    columns: Vec<Column>,
}

struct Column {
    emulator: Emulator,
    /// It runs there.
    expected: bool,
    ended: Option<Ended>,
}

/// Width of a column of results.
const WIDTH: usize = 14;

impl Row {
    fn new(case: &Case, emulators: &[Emulator]) -> Self {
        let column = |&emulator: &Emulator| Column {
            emulator,
            expected: case.minutes(emulator).is_some(),
            ended: None,
        };
        Self {
            name: case.name,
            columns: emulators.iter().map(column).collect(),
        }
    }

    fn end(&mut self, emulator: Emulator, ended: Ended) {
        if let Some(column) = self.columns.iter_mut().find(|c| c.emulator == emulator) {
            column.ended = Some(ended);
        }
    }

    fn is_complete(&self) -> bool {
        self.columns.iter().all(|c| !c.expected || c.ended.is_some())
    }

    fn line(&self) -> String {
        let cell = |c: &Column| c.ended.as_ref().map_or_else(|| "-".to_owned(), Ended::cell);
        let cells: Vec<String> = self.columns.iter().map(|c| format!("{:WIDTH$}", cell(c))).collect();
        let details: Vec<&str> = self.columns.iter().filter_map(|c| c.ended.as_ref()?.detail()).collect();
        format!("{:32}{}  {}", self.name, cells.join(" | "), details.join("; "))
            .trim_end()
            .to_owned()
    }
}

/// Runs them; true when none failed.
pub fn run(environment: &Environment, selection: &Selection) -> bool {
    let cases = selection.cases();
    let runs = selection.runs(&cases);
    println!(
        "{} whole-system tests in {} runs, {} at a time; logs in {}",
        cases.len(),
        runs.len(),
        selection.jobs,
        environment.logs.display()
    );
    let titles: Vec<String> = selection.emulators.iter().map(|e| format!("{e:WIDTH$}")).collect();
    println!("{:42}{}", "", titles.join(" | ").trim_end());
    let queue = Mutex::new(runs);
    let rows: Mutex<Vec<Row>> = Mutex::new(cases.iter().map(|case| Row::new(case, &selection.emulators)).collect());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..selection.jobs.max(1) {
            scope.spawn(|| {
                while let Some((number, emulator)) = next() {
                    let start = Instant::now();
                    let result = run_one(environment, &cases[number], emulator);
                    let seconds = start.elapsed().as_secs();
                    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                    rows[number].end(emulator, Ended { result, seconds });
                    if rows[number].is_complete() {
                        let done = rows.iter().filter(|row| row.is_complete()).count();
                        println!("[{done:3}/{:3}] {}", rows.len(), rows[number].line());
                    }
                }
            });
        }
    });
    summarise(&rows.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn run_one(environment: &Environment, case: &Case, emulator: Emulator) -> Result<Outcome> {
    if let Some(reason) = emulator.lacks() {
        return Outcome::skip(reason);
    }
    if let Some(reason) = case.second_try(emulator) {
        // What takes longer than it ever does hangs.
        let usual = Duration::from_secs(u64::from(case.minutes(emulator).unwrap_or(1)) * 60);
        let context = Context::new(environment, case.name, emulator, usual);
        match (case.run)(&context) {
            Err(failure) => println!("{} on {emulator} is tried once more ({reason}): {failure}", case.name),
            good => return good,
        }
    }
    let context = Context::new(environment, case.name, emulator, case.limit(emulator));
    (case.run)(&context)
}

/// Prints what failed, whole, and the totals; true when nothing failed.
fn summarise(rows: &[Row]) -> bool {
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    for row in rows {
        for column in &row.columns {
            match column.ended.as_ref().map(|ended| &ended.result) {
                Some(Ok(Outcome::Passed)) => passed += 1,
                Some(Ok(Outcome::Skipped(_))) => skipped += 1,
                Some(Err(failure)) => failures.push(format!("{} on {}: {failure}", row.name, column.emulator)),
                None => {}
            }
        }
    }
    if !failures.is_empty() {
        println!("\nFailures:");
        for text in &failures {
            println!("  {text}\n");
        }
    }
    println!("{passed} passed, {} failed, {skipped} skipped", failures.len());
    failures.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(filter: &str, emulators: &[Emulator]) -> Selection {
        Selection {
            filters: vec![filter.into()],
            emulators: emulators.into(),
            jobs: 1,
        }
    }

    #[test]
    fn the_longest_run_comes_first_and_every_case_has_one() {
        let all = selection("", &Emulator::ALL);
        let cases = all.cases();
        let runs = all.runs(&cases);
        let minutes: Vec<u32> = runs.iter().filter_map(|&(number, e)| cases[number].minutes(e)).collect();
        assert!(minutes.is_sorted_by(|a, b| a >= b));
        assert!((0..cases.len()).all(|number| runs.contains(&(number, Emulator::Qemu))));
    }

    #[test]
    fn one_emulator_has_its_tests_alone() {
        let cases = selection("", &[Emulator::Bochs]).cases();
        assert!(cases.iter().any(|c| c.name == "boot/bios-1-cpu"));
        assert!(!cases.iter().any(|c| c.name == "fuzz/system-calls"));
    }

    #[test]
    fn a_line_is_printed_when_all_columns_are_there() {
        let case = selection("boot/bios-1-cpu", &Emulator::ALL).cases()[0];
        let mut row = Row::new(&case, &Emulator::ALL);
        let passed = |seconds| Ended {
            result: Ok(Outcome::Passed),
            seconds,
        };
        row.end(Emulator::Bochs, passed(95));
        assert!(!row.is_complete());
        row.end(Emulator::Qemu, passed(12));
        assert!(row.is_complete());
        assert!(row.line().ends_with("ok        12 s | ok        95 s"), "{}", row.line());
    }
}
