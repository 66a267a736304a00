//! Other programs, run at the workspace's root.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies two levels below the root")
        .to_owned()
}

/// A program to run at the root, with its arguments separated by spaces.
pub(crate) fn command(program: impl AsRef<Path>, arguments: &str) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo(arguments: &str) -> Command {
    command(env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from), arguments)
}

/// Runs a program to its end; an error where it says that it failed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

/// What a program writes to stdout; nothing where it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// Whether a program of this name is in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
