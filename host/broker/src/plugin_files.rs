//! The files of uploaded modules: `plugins/HASH.wasm` in the data directory.
//!
//! Owns their names and that a file, once named by the catalog, is whole and durable. Never looks inside.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use bytes::Bytes;
use protocol::PluginHash;
use sha2::{Digest as _, Sha256};

/// The directory of modules.
#[derive(Debug, Clone)]
pub(crate) struct PluginFiles {
    dir: PathBuf,
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
    /// Uses this directory, and makes it where there is none.
    pub(crate) fn open(dir: PathBuf) -> io::Result<PluginFiles> {
        fs::create_dir_all(&dir)?;
        // Modules are lost with the name of the directory they are in.
        File::open(dir.parent().unwrap_or(&dir))?.sync_all()?;
        Ok(PluginFiles { dir })
    }

    /// Keeps a module: whole and synced under its name, or not there.
    pub(crate) fn write(&self, hash: PluginHash, wasm: &[u8]) -> io::Result<()> {
        let path = self.path(hash);
        let unfinished = path.with_extension(&UNFINISHED[1..]);
        let mut file = File::create(&unfinished)?;
        file.write_all(wasm)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// The modules there are.
    pub(crate) fn list(&self) -> io::Result<BTreeSet<PluginHash>> {
        let hash = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_str().and_then(hash_of_name));
        fs::read_dir(&self.dir)?.map(hash).filter_map(Result::transpose).collect()
    }

    /// Reads a module; one whose bytes are not those of its name is an error.
    pub(crate) fn read(&self, hash: PluginHash) -> io::Result<Bytes> {
        let wasm = fs::read(self.path(hash))?;
        match hash_of(&wasm) == hash {
            true => Ok(wasm.into()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{hash}.wasm` is damaged"))),
        }
    }

    /// Deletes modules that nothing names any more, and what an interrupted upload left; returns what went.
    pub(crate) fn sweep(&self, named: &BTreeSet<PluginHash>) -> io::Result<Vec<PluginHash>> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            match path.file_name().and_then(|name| name.to_str()).and_then(hash_of_name) {
                Some(hash) if !named.contains(&hash) => {
                    fs::remove_file(&path)?;
                    removed.push(hash);
                }
                None if path.to_string_lossy().ends_with(UNFINISHED) => fs::remove_file(&path)?,
                _ => {}
            }
        }
        Ok(removed)
    }

    fn path(&self, hash: PluginHash) -> PathBuf {
        self.dir.join(format!("{hash}.wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_kept_until_nothing_names_it_and_a_damaged_one_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let files = PluginFiles::open(dir.path().join("plugins")).unwrap();
        let (kept, lost) = (hash_of(b"kept"), hash_of(b"lost"));
        files.write(kept, b"kept").unwrap();
        files.write(lost, b"lost").unwrap();
        assert_eq!(files.sweep(&BTreeSet::from([kept])).unwrap(), [lost]);
        assert_eq!(files.read(kept).unwrap(), Bytes::from_static(b"kept"));
        fs::write(files.path(kept), b"kepT").unwrap();
        assert!(files.read(kept).is_err());
    }
}
