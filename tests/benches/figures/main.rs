//! `cargo xtask bench`: the figures that the documentation quotes. They are printed with the machine that they are from, and
//! never asserted: what is right is the tests' business. Arguments name the parts to run; without any, all of them.

mod connect;
mod flood;
mod loads;
mod machine;
mod pairs;
mod programs;
mod recordings;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

type Part = (&'static str, fn(&Path) -> Result<(), Box<dyn Error>>);

const PARTS: [Part; 5] = [
    ("pairs", pairs::measure),
    ("programs", programs::measure),
    ("flood", flood::measure),
    ("recordings", recordings::measure),
    ("loads", loads::measure),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                // Writing to a string cannot fail.
                let _ = write!(text, ": {error}");
                cause = error.source();
            }
            say(&text);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let binary = wsltrace_tests::binary()?;
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|name| !PARTS.iter().any(|(part, _)| part == name)) {
        let parts = PARTS.map(|(name, _)| name).join(", ");
        return Err(format!("there is no part {}: name one of {parts}", unknown.escape_debug()).into());
    }
    machine::print()?;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    PARTS.into_iter().filter(|(name, _)| is_wanted(name)).try_for_each(|(_, measure)| measure(&binary))
}

#[expect(clippy::print_stdout, reason = "the figures")]
fn say(line: &str) {
    println!("{line}");
}
