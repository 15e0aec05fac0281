//! `wsltrace demo` and `wsltrace selftest`: the lab, shown and checked.

use std::io;

use super::Failure;
use crate::lab::{self, LabError};

/// Breaks a private network and shows what the tracer says; without a name, one scenario and the list of all.
pub fn demo(scenario: Option<&str>) -> Result<(), Failure> {
    let binary = std::env::current_exe()?;
    told(lab::demo(scenario, &binary, &mut io::stdout()))
}

/// Runs the scenarios of these names, or all; an error when one failed.
pub fn selftest(scenarios: &[String], json: bool) -> Result<(), Failure> {
    let binary = std::env::current_exe()?;
    match lab::selftest(scenarios, json, &binary, &mut io::stdout()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new("some scenarios failed on this kernel; attach the table to a bug report")),
        Err(error) => told(Err(error)),
    }
}

fn told(result: Result<(), LabError>) -> Result<(), Failure> {
    result.map_err(|error| {
        let root = nix::unistd::geteuid().is_root();
        let hint = (!root).then(|| "run it as root: sudo wsltrace demo".to_owned());
        Failure { message: error.chain(), hint, status: 1 }
    })
}
