//! Builds the simulator as it is to be run, and runs it: fast, with every check of our own code on.

use std::ffi::{OsStr, OsString};

use anyhow::Result;

use crate::run::{cargo, succeed};

/// What CI runs: always the same seeds, as many as it takes; each corner must have been got into.
const CI: &str = "run --jobs 2 --cuts 100000";

/// Hands everything on; power cuts where no command is named.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    // The plugin engine takes minutes to build; only a whole broker needs it.
    let features = if names_broker(arguments) { "" } else { "--no-default-features " };
    let mut sim = cargo(&format!("run --quiet --locked --package weir-sim --profile sim {features}--"));
    if arguments.iter().any(|argument| argument == "--ci") {
        sim.args(CI.split_whitespace());
    } else if arguments.first().is_none_or(|first| is_option(first)) {
        sim.arg("run");
    }
    succeed(sim.args(arguments.iter().filter(|argument| *argument != "--ci")))
}

/// The slice of CI.
pub(crate) fn run_ci() -> Result<()> {
    run(&["--ci".into()])
}

fn names_broker(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|first| first == "broker")
}

fn is_option(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}
