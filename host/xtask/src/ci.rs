//! All checks, in the order in which they are likely to fail.

use anyhow::Result;

use crate::{
    plugins,
    run::{cargo, is_installed, succeed},
    sim,
};

/// Runs them all; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    step("format", "fmt --all -- --check")?;
    step("lints", "clippy --workspace --all-targets --locked -- -D warnings")?;
    step("tests", "test --workspace --locked")?;
    println!("ci: documentation");
    succeed(
        cargo("doc --workspace --no-deps --document-private-items --locked --quiet").env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    if is_installed("cargo-deny") {
        step("dependency rules", "deny --config .deny.toml check bans licenses sources")?;
    } else {
        println!("ci: dependency rules are not checked: `cargo install cargo-deny` brings what does it");
    }
    println!("ci: power cuts");
    sim::run_ci()?;
    println!("ci: plugins");
    plugins::check()
}

fn step(name: &str, arguments: &str) -> Result<()> {
    println!("ci: {name}");
    succeed(&mut cargo(arguments))
}
