//! Processes of this binary beside the one that measures, and what the system counts of a process.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{data_dir, memory, restart};

/// What a process of this binary does when it is not the one that measures.
pub(crate) enum Role {
    /// See [`data_dir::remove_when_alone`].
    Remove { dir: PathBuf },
    /// See [`restart::write_until_killed`].
    WriteUntilKilled { dir: PathBuf, bytes: u64 },
    /// See [`memory::load_and_idle`].
    LoadAndIdle { dir: PathBuf, bytes: u64 },
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
        let dir = PathBuf::from(arguments.next().context("a role has a directory")?);
        let bytes = arguments.next().and_then(|bytes| bytes.to_str()?.parse().ok()).unwrap_or(0);
        match name.to_str().unwrap_or_default() {
            "remove" => Ok(Some(Role::Remove { dir })),
            "write-until-killed" => Ok(Some(Role::WriteUntilKilled { dir, bytes })),
            "load-and-idle" => Ok(Some(Role::LoadAndIdle { dir, bytes })),
            other => bail!("there is no role `{other}`"),
        }
    }

    /// Does what it is for; returns when that is done.
    pub(crate) fn play(self) -> Result<()> {
        if !matches!(self, Role::Remove { .. }) {
            end_with_parent();
        }
        match self {
            Role::Remove { dir } => data_dir::remove_when_alone(&dir),
            Role::WriteUntilKilled { dir, bytes } => restart::write_until_killed(&dir, bytes),
            Role::LoadAndIdle { dir, bytes } => memory::load_and_idle(&dir, bytes),
        }
    }

    /// Starts a process that plays it, with pipes for its input and output.
    pub(crate) fn start(self, apart: bool) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(MARK).stdin(Stdio::piped()).stdout(Stdio::piped());
        match self {
            Role::Remove { dir } => command.arg("remove").arg(dir),
            Role::WriteUntilKilled { dir, bytes } => command.arg("write-until-killed").arg(dir).arg(bytes.to_string()),
            Role::LoadAndIdle { dir, bytes } => command.arg("load-and-idle").arg(dir).arg(bytes.to_string()),
        };
        if apart {
            command.process_group(0);
        }
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

/// Bytes that came from the disk itself.
pub(crate) fn bytes_read_from_disk() -> Result<u64> {
    counter("/proc/self/io", "read_bytes")
}

/// Bytes that the threads of this process have written to files, but for those of one name.
pub(crate) fn bytes_written_except(thread: &str) -> Result<u64> {
    let mut bytes = 0;
    for task in fs::read_dir("/proc/self/task").context("only Linux counts what a thread writes")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() != thread {
            bytes += counter(task.join("io"), "wchar")?;
        }
    }
    Ok(bytes)
}

/// Resident memory of this process, now.
pub(crate) fn resident_bytes() -> Result<u64> {
    Ok(counter("/proc/self/status", "VmRSS")? << 10)
}

fn counter(file: impl Into<PathBuf>, name: &str) -> Result<u64> {
    let file = file.into();
    let text = fs::read_to_string(&file).context("only Linux counts this")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("`{}` has no number `{name}`", file.display()))
}
