//! Every scenario of the lab as a test of its own: the real binary traces it, and what it says is compared with the truth.
//! A scenario that cannot be played here prints `SKIP: name: reason` and counts as ignored; of a fault that this kernel cannot have,
//! by its own configuration, there is no test.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use wsltrace::lab::{Ending, Scenario, all, run};

fn main() {
    let trials = all().into_iter().filter(can_be_here).map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

#[expect(clippy::print_stderr, reason = "what is not tested is to be known")]
fn can_be_here(scenario: &Scenario) -> bool {
    let why = scenario.impossible();
    if let Some(why) = &why {
        eprintln!("not here: {}: {why}", scenario.name);
    }
    why.is_none()
}

fn trial(scenario: Scenario) -> Trial {
    Trial::ignorable_test(scenario.name, move || {
        let binary = match wsltrace_tests::binary() {
            Ok(binary) => binary,
            Err(why) => return Ok(skip(scenario.name, &why)),
        };
        let report = run(&scenario, &binary);
        if report.in_vain > 0 {
            tell_in_vain(&scenario, report.in_vain);
        }
        match report.ending {
            Ending::Passed => Ok(Completion::Completed),
            Ending::Skipped(why) | Ending::Impossible(why) => Ok(skip(scenario.name, &why)),
            Ending::Failed(problems) => Err(Failed::from(problems.join("\n"))),
        }
    })
}

#[expect(clippy::print_stderr, reason = "a play that showed nothing is to be known")]
fn tell_in_vain(scenario: &Scenario, times: u32) {
    eprintln!("{}: plays in vain: {times}: this kernel withholds events, and the tracer said that it misses some", scenario.name);
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn skip(name: &str, why: &str) -> Completion {
    println!("SKIP: {name}: {why}");
    Completion::ignored_with(why)
}
