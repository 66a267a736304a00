//! Compiled plugins on disk, so that a broker starts without compiling again.
//!
//! Owns the directory of compiled code and the one place where wasmtime is given native code, which it runs as it is:
//! fresh from a compiler, or kept by this broker. A file is
//!
//! ```text
//! <plugin hash>-<engine>.compiled     HMAC-SHA-256 (32 bytes) of name and code | code
//! key                                 32 random bytes, the key of the HMAC
//! ```
//!
//! Invariants
//! - The directory belongs to the user the broker runs as and is closed to everybody else (0700); so is the key (0600).
//!   What makes a file authentic is the HMAC under that key: a file put there by anybody who cannot read the key,
//!   copied from another broker, renamed, cut or decayed is not used, and compiled anew. Somebody who can read the key
//!   is that user and can run native code as it is.
//! - A file of another version of wasmtime or another processor has another name.
//! - Nothing here is ever needed: without a cache, plugins are compiled at every start.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::PluginHash;
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module};

use crate::{NativeCode, clock};

const MAC_BYTES: usize = 32;

/// Name of the key's file.
const KEY: &str = "key";

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// Opens the cache below `dir`, making directory and key where there are none.
    pub(crate) fn open(dir: &Path) -> io::Result<Cache> {
        let dir = dir.join("compiled");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        // An older umask, or a copy, may have left it open.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let key = key_of(&dir)?;
        Ok(Cache { dir, key })
    }

    /// Compiled code of a plugin, if this broker wrote it for this engine.
    pub(crate) fn get(&self, engine: &Engine, plugin: PluginHash) -> Option<Module> {
        let name = name_of(engine, plugin);
        let file = fs::read(self.dir.join(&name)).ok()?;
        let (mac, code) = file.split_at_checked(MAC_BYTES)?;
        if !same(mac, &self.mac(&name, code)) {
            tracing::warn!(file = name, "compiled plugin is not one that this broker wrote; compiling it anew");
            return None;
        }
        match deserialize(engine, code) {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::warn!(file = name, "compiled plugin cannot be used: {error:#}; compiling it anew");
                None
            }
        }
    }

    /// Keeps compiled code. A failure is logged and costs nothing but time at the next start.
    pub(crate) fn put(&self, engine: &Engine, plugin: PluginHash, module: &Module) {
        let name = name_of(engine, plugin);
        let written = module.serialize().map_err(io::Error::other).and_then(|code| self.write(&name, &code));
        if let Err(error) = written {
            tracing::warn!(file = name, "compiled plugin cannot be kept: {error}");
        }
    }

    /// Forgets a plugin's compiled code, of whatever engine.
    pub(crate) fn remove(&self, plugin: PluginHash) {
        let prefix = format!("{plugin}-");
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _gone_already = fs::remove_file(entry.path());
            }
        }
    }

    /// Deletes compiled code of other engines and of plugins that are not among these, and what was not written to its
    /// end. What cannot be deleted takes room and does no harm; the next sweep tries again.
    pub(crate) fn sweep(&self, engine: &Engine, named: &BTreeSet<PluginHash>) {
        let needed: BTreeSet<String> = named.iter().map(|plugin| name_of(engine, *plugin)).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != KEY && !needed.contains(&name) {
                let _tried_again_later = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes beside and renames, so that a reader sees a whole file or none.
    fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        let beside = beside(&self.dir, name);
        let written = create(&beside).and_then(|mut file| {
            file.write_all(&self.mac(name, code))?;
            file.write_all(code)?;
            fs::rename(&beside, self.dir.join(name))
        });
        if written.is_err() {
            let _not_there = fs::remove_file(&beside);
        }
        written
    }

    /// HMAC-SHA-256 (RFC 2104) with a key shorter than the block.
    fn mac(&self, name: &str, code: &[u8]) -> [u8; 32] {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.key).for_each(|(to, key)| *to ^= key);
            block
        };
        let inner = Sha256::new_with_prefix(pad(0x36)).chain_update(name).chain_update([0]).chain_update(code);
        Sha256::new_with_prefix(pad(0x5c)).chain_update(inner.finalize()).finalize().into()
    }
}

/// What a compiler just made of a module, ready to run.
pub(crate) fn module_of(engine: &Engine, code: &NativeCode) -> wasmtime::Result<Module> {
    deserialize(engine, code.as_bytes())
}

/// The same code for another engine of this process.
pub(crate) fn moved_to(engine: &Engine, module: &Module) -> wasmtime::Result<Module> {
    deserialize(engine, &module.serialize()?)
}

#[expect(unsafe_code, reason = "the one place where native code is given to wasmtime")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: `Module::deserialize` must only be given what wasmtime's serialization returned, unchanged. There are three
    // callers. `moved_to` has just got it from there. `module_of` has a `NativeCode`, which is that by its own promise:
    // safe code makes it by compiling, and who makes it of bytes has promised as much where it did so. `Cache::get` has
    // just checked an HMAC over exactly these bytes whose key only this broker's user can read, and the only place where
    // that HMAC is made is `Cache::write`, from what `Module::serialize` returned.
    unsafe { Module::deserialize(engine, code) }
}

fn name_of(engine: &Engine, plugin: PluginHash) -> String {
    // A fixed hash function, the same in every process. It only keeps engines apart; wasmtime checks for itself.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{plugin}-{:016x}.compiled", hasher.finish())
}

fn key_of(dir: &Path) -> io::Result<[u8; 32]> {
    let path = dir.join(KEY);
    let mut key = [0; 32];
    match File::open(&path).and_then(|mut file| file.read_exact(&mut key)) {
        Ok(()) => return Ok(key),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
        Err(error) => return Err(error),
    }
    let key = clock::secret()?;
    let beside = beside(dir, KEY);
    create(&beside)?.write_all(&key)?;
    fs::rename(&beside, &path)?;
    Ok(key)
}

/// A name that no other writer uses at the same time.
fn beside(dir: &Path, name: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("{name}.{}-{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Compares without telling how far it agreed.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (l, r)| differ | (l ^ r)) == 0
}
