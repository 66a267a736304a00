//! The project's chores: `cargo xtask CHORE`.
//!
//! Owns what must be done alike by everybody and by CI. Never needs anything of the product's own crates, so that it
//! builds in seconds.
//!
//! Start at [`ci`] and [`plugins`].

mod behaviour;
mod ci;
mod plugins;
mod run;
mod toolchain;

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
    /// Format check, clippy, tests, documentation, dependency rules, and the kept plugins: what must pass before a change lands.
    Ci,
    /// Build the plugins in `plugins/` and keep each module beside its source.
    Plugins {
        /// Only check that the kept modules are what the sources build to.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Ci => ci::run(),
        Chore::Plugins { check: false } => plugins::build(),
        Chore::Plugins { check: true } => plugins::check(),
    }
}
