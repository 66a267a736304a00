//! The files of uploaded modules: `plugins/HASH.wasm` in the data directory.
//!
//! Owns their names and that a file, once named by the catalog, is whole and durable. Never looks inside. They lie on the
//! store's file system, so that a simulation of its disk has them, too.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use protocol::PluginHash;
use sha2::{Digest as _, Sha256};
use storage::{FileSystem, OpenMode};

/// The directory of modules.
#[derive(Debug, Clone)]
pub(crate) struct PluginFiles {
    dir: PathBuf,
    file_system: Arc<dyn FileSystem>,
}

/// How the name of a file ends while it is written.
const UNFINISHED: &str = ".wasm.tmp";

fn parse_hash(hex: &str) -> Option<PluginHash> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(PluginHash(bytes))
}

/// The module in a file, by the file's name.
fn hash_of_name(name: &str) -> Option<PluginHash> {
    name.strip_suffix(".wasm").and_then(parse_hash)
}

/// SHA-256 of a module.
pub(crate) fn hash_of(wasm: &[u8]) -> PluginHash {
    PluginHash(Sha256::digest(wasm).into())
}

impl PluginFiles {
    /// The modules in this directory, if there is one.
    pub(crate) fn at(dir: PathBuf, file_system: Arc<dyn FileSystem>) -> PluginFiles {
        PluginFiles { dir, file_system }
    }

    /// Uses this directory, and makes it where there is none.
    pub(crate) fn open(dir: PathBuf, file_system: Arc<dyn FileSystem>) -> io::Result<PluginFiles> {
        file_system.create_dir_all(&dir)?;
        // Modules are lost with the name of the directory they are in; who made it may have been stopped before this.
        file_system.sync_dir(dir.parent().unwrap_or(&dir))?;
        Ok(PluginFiles::at(dir, file_system))
    }

    /// The modules in another directory of the same file system, made where there is none.
    pub(crate) fn elsewhere(&self, dir: PathBuf) -> io::Result<PluginFiles> {
        PluginFiles::open(dir, self.file_system.clone())
    }

    /// Keeps a module: whole and synced under its name, or not there.
    pub(crate) fn write(&self, hash: PluginHash, wasm: &[u8]) -> io::Result<()> {
        let path = self.path(hash);
        let unfinished = path.with_extension(&UNFINISHED[1..]);
        self.remove_if_there(&unfinished)?;
        let written = self.write_new(&unfinished, wasm).and_then(|()| self.file_system.rename(&unfinished, &path));
        if written.is_err() {
            let _swept_later = self.remove_if_there(&unfinished);
        }
        written.and_then(|()| self.file_system.sync_dir(&self.dir))
    }

    fn write_new(&self, path: &Path, wasm: &[u8]) -> io::Result<()> {
        let file = self.file_system.open(path, OpenMode::New)?;
        file.write_at(0, wasm)?;
        file.sync_data()
    }

    /// Deletes a module that nothing names; one that cannot be deleted is left to the next sweep.
    pub(crate) fn remove(&self, hash: PluginHash) {
        let _swept_later = self.remove_if_there(&self.path(hash));
    }

    /// The modules there are.
    pub(crate) fn list(&self) -> io::Result<BTreeSet<PluginHash>> {
        let entries = self.file_system.list(&self.dir)?;
        Ok(entries.iter().filter_map(|entry| hash_of_name(&entry.name)).collect())
    }

    /// Reads a module; one whose bytes are not those of its name is an error.
    pub(crate) fn read(&self, hash: PluginHash) -> io::Result<Bytes> {
        let file = self.file_system.open(&self.path(hash), OpenMode::ReadOnly)?;
        let mut wasm = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        file.read_at(0, &mut wasm)?;
        match hash_of(&wasm) == hash {
            true => Ok(wasm.into()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{hash}.wasm` is damaged"))),
        }
    }

    /// Deletes modules that nothing names any more, and what an interrupted upload left; returns what went.
    pub(crate) fn sweep(&self, named: &BTreeSet<PluginHash>) -> io::Result<Vec<PluginHash>> {
        let mut removed = Vec::new();
        for entry in self.file_system.list(&self.dir)? {
            match hash_of_name(&entry.name) {
                Some(hash) if !named.contains(&hash) => {
                    self.file_system.remove(&self.path(hash))?;
                    removed.push(hash);
                }
                None if entry.name.ends_with(UNFINISHED) => self.file_system.remove(&self.dir.join(entry.name))?,
                _ => {}
            }
        }
        Ok(removed)
    }

    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.file_system.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, hash: PluginHash) -> PathBuf {
        self.dir.join(format!("{hash}.wasm"))
    }
}

#[cfg(test)]
mod tests {
    use storage::HostFileSystem;

    use super::*;

    #[test]
    fn a_module_is_kept_until_nothing_names_it_and_a_damaged_one_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let files = PluginFiles::open(dir.path().join("plugins"), Arc::new(HostFileSystem)).unwrap();
        let (kept, lost) = (hash_of(b"kept"), hash_of(b"lost"));
        files.write(kept, b"kept").unwrap();
        files.write(lost, b"lost").unwrap();
        assert_eq!(files.sweep(&BTreeSet::from([kept])).unwrap(), [lost]);
        assert_eq!(files.read(kept).unwrap(), Bytes::from_static(b"kept"));
        std::fs::write(files.path(kept), b"kepT").unwrap();
        assert!(files.read(kept).is_err());
    }
}
