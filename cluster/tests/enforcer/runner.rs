//! Runs the tests one after the other in one cluster, and sums up as the usual harness does.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use enforcer_cluster::Options;

use crate::world::{self, World};

/// A test in the cluster.
pub(crate) struct Test {
    /// What it is called, and chosen by.
    pub(crate) name: &'static str,
    /// Panics if it fails.
    pub(crate) run: fn(&World),
}

/// Tests that share a cluster.
pub(crate) struct Suite {
    /// What its cluster is called.
    pub(crate) name: &'static str,
    /// Their cluster.
    pub(crate) options: Options,
    /// In the order in which they run.
    pub(crate) tests: &'static [Test],
}

/// Runs the tests that the arguments choose: all if there are none.
pub(crate) fn run(suites: &[Suite]) -> ExitCode {
    // Flags are meant for the usual harness; `--list` and others have no use here.
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |test: &&Test| {
        wanted.is_empty() || wanted.iter().any(|part| test.name.contains(part.as_str()))
    };
    let up = world::running();
    let (mut has_run, mut all_passed) = (false, true);
    for Suite { name, options, tests } in suites {
        let tests: Vec<&Test> = tests.iter().filter(chosen).collect();
        if tests.is_empty() {
            continue;
        }
        // A cluster that somebody has started is of one kind, and theirs to choose.
        if up.as_ref().is_some_and(|up| up.options() != *options) {
            println!(
                "\n{} tests need another cluster than the one that is up: {name}",
                tests.len()
            );
            continue;
        }
        println!("\nrunning {} tests in a cluster: {name}", tests.len());
        has_run = true;
        all_passed &= run_in(*options, &tests);
    }
    // None is no success: a name may be wrong, or the cluster.
    if has_run && all_passed { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Runs these tests in their cluster; tells whether all have passed.
fn run_in(options: Options, tests: &[&Test]) -> bool {
    let begun = Instant::now();
    let mut failed = Vec::new();
    // What panics here is told by the panic itself; then none of the tests can run.
    match catch_unwind(|| World::up(options)) {
        Err(_) => failed.extend(tests.iter().map(|test| test.name)),
        Ok(world) => {
            println!("a cluster is up after {:.1} s", begun.elapsed().as_secs_f64());
            for test in tests {
                if !pass(test, &world) {
                    failed.push(test.name);
                }
            }
        }
    }
    for name in &failed {
        println!("failed: {name}");
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; finished in {:.2}s\n",
        tests.len() - failed.len(),
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    failed.is_empty()
}

fn pass(test: &Test, world: &World) -> bool {
    println!("\n{}", test.name);
    let begun = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (test.run)(world)));
    let seconds = begun.elapsed().as_secs_f64();
    if result.is_ok() {
        println!("test {} ... ok ({seconds:.1} s)", test.name);
    } else {
        println!("test {} ... FAILED ({seconds:.1} s)", test.name);
        world.explain();
        world.repair();
    }
    result.is_ok()
}
