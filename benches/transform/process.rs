//! Processes of this binary beside the one that measures.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{idle, neighbours};

/// What a process of this binary does when it is not the one that measures.
pub(crate) enum Role {
    /// See [`idle::deploy_and_idle`].
    DeployAndIdle,
    /// See [`neighbours::serve`].
    Serve { dir: PathBuf },
}

/// Before the arguments of a role; nothing a person types.
const MARK: &str = "weir-bench-role";

impl Role {
    /// The role that this process was started for, if any.
    pub(crate) fn of_this_process() -> Result<Option<Role>> {
        let mut arguments = std::env::args_os().skip(1);
        if arguments.next().is_none_or(|first| first != MARK) {
            return Ok(None);
        }
        let name = arguments.next().unwrap_or_default();
        match name.to_str().unwrap_or_default() {
            "deploy-and-idle" => Ok(Some(Role::DeployAndIdle)),
            "serve" => Ok(Some(Role::Serve { dir: arguments.next().context("a broker has a directory")?.into() })),
            other => bail!("there is no role `{other}`"),
        }
    }

    /// Does what it is for; returns when that is done.
    pub(crate) fn play(self) -> Result<()> {
        end_with_parent();
        match self {
            Role::DeployAndIdle => idle::deploy_and_idle(),
            Role::Serve { dir } => neighbours::serve(&dir),
        }
    }

    /// Starts a process that plays it, with pipes for its input and output.
    pub(crate) fn start(self) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(MARK).stdin(Stdio::piped()).stdout(Stdio::piped());
        match self {
            Role::DeployAndIdle => command.arg("deploy-and-idle"),
            Role::Serve { dir } => command.arg("serve").arg(dir),
        };
        command.spawn().context("failed to start another process of this program")
    }
}

/// Ends this process as soon as the one that started it is gone.
fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
}

/// Resident memory of this process, now.
pub(crate) fn resident_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("only Linux counts this")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kib.context("`/proc/self/status` has no number `VmRSS`")? << 10)
}
