//! The project's chores: `cargo xtask CHORE`.
//!
//! Owns what must be done alike by everybody and by CI. Never needs anything of the product's own crates, so that it
//! builds in seconds.
//!
//! Start at [`ci`], [`plugins`], [`fuzz`] and [`mutants`].

mod behaviour;
mod ci;
mod clock;
mod fuzz;
mod mutants;
mod plugins;
mod run;
mod sim;
mod toolchain;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

/// Project chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format check, clippy, tests, documentation, dependency rules, power cuts, and the kept plugins: what must pass before a change lands.
    Ci,
    /// Cut the power of the store, a hundred times a second; also the simulator's other commands. `sim --help` has the options.
    #[command(disable_help_flag = true)]
    Sim {
        /// What the simulator is given; `--ci` is what CI gives it: a hundred thousand cuts, in a few minutes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build the plugins in `plugins/` and `benches/guests/`, and keep each module beside its source.
    Plugins {
        /// Only check that the kept modules are what the sources build to.
        #[arg(long)]
        check: bool,
    },
    /// Run the fuzz targets of `host/fuzz` one after the other; what breaks one is kept in its corpus.
    Fuzz {
        /// How long each of them runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only these.
        targets: Vec<String>,
    },
    /// Plant faults in the store, one at a time, and have the simulator find each within two minutes.
    Mutants {
        /// Only say what there is.
        #[arg(long)]
        list: bool,
        /// Only these.
        names: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Ci => ci::run(),
        Chore::Sim { arguments } => sim::run(&arguments),
        Chore::Plugins { check: false } => plugins::build(),
        Chore::Plugins { check: true } => plugins::check(),
        Chore::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Chore::Mutants { list, names } => mutants::run(&names, list),
    }
}
