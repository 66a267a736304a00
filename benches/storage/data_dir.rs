//! The directory that is measured in, and its end.
//!
//! A process of our own binary waits until this one is gone, and removes the directory then: at the end of `main`, after
//! an error, and after Ctrl-C or a kill, which leave no time for anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::process::Role;

/// A directory of its own within the one asked for.
pub(crate) struct DataDir {
    path: PathBuf,
    remover: Child,
}

impl DataDir {
    pub(crate) fn new_in(parent: &Path) -> Result<DataDir> {
        let path = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(parent)?.keep();
        // Not of our process group, or Ctrl-C would end it too.
        let remover = Role::Remove { dir: path.clone() }.start(true)?;
        Ok(DataDir { path, remover })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        if let Err(error) = self.remover.wait() {
            eprintln!("`{}` may be left behind: {error}", self.path.display());
        }
    }
}

/// The remover: waits until its standard input ends, which it does with the process that holds the other end.
pub(crate) fn remove_when_alone(dir: &Path) -> Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    // A process that still writes into it ends at the same sign, though perhaps a little later.
    for _ in 0..100 {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => thread::sleep(Duration::from_millis(100)),
            _ => return Ok(()),
        }
    }
    Ok(fs::remove_dir_all(dir)?)
}
