//! Where a running broker leaves its address, so that `weir` on the same host finds it from any folder, with no flag.
//!
//! Owns one small TOML file per broker in the user's runtime directory: `$XDG_RUNTIME_DIR/weir`, else
//! `<temporary directory>/weir-<uid>`, mode 0700. Holds no secret: the identity file is named, not copied. The broker
//! holds a lock on its file while it runs; a file that nobody locks was left behind by a crash and counts for nothing.
//!
//! Start at [`running_brokers`] to read, at [`RuntimeFile::write`] to write.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::private_files::{create_private_dir, private_options};

/// A broker of this user that runs on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningBroker {
    /// Where its QUIC listener is reached from this host.
    pub address: SocketAddr,
    /// An identity file that it lets in.
    pub identity: PathBuf,
    /// Its data directory.
    pub data_dir: PathBuf,
}

/// The file of one running broker; removed when dropped.
#[derive(Debug)]
pub(crate) struct RuntimeFile {
    path: PathBuf,
    _locked: File,
}

impl RuntimeFile {
    /// Writes the file of `broker` into `dir`.
    pub(crate) fn write(dir: &Path, broker: &RunningBroker) -> io::Result<RuntimeFile> {
        make_sure_of(dir)?;
        // Named by the data directory, whose lock the caller holds: so no other running broker writes this file.
        let name = crc32c::crc32c(broker.data_dir.as_os_str().as_encoded_bytes());
        let path = dir.join(format!("broker-{name:08x}.toml"));
        let mut file = private_options().create(true).truncate(false).open(&path)?;
        file.lock()?;
        file.set_len(0)?;
        let text = toml::to_string(broker).map_err(io::Error::other)?;
        file.write_all(text.as_bytes())?;
        Ok(RuntimeFile { path, _locked: file })
    }
}

impl Drop for RuntimeFile {
    fn drop(&mut self) {
        // Left behind it does no harm: it is not locked any more.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the runtime file stays behind");
        }
    }
}

/// The directory of this user's runtime files.
#[must_use]
pub fn runtime_dir() -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("weir"),
        None => env::temp_dir().join(format!("weir-{}", rustix::process::geteuid().as_raw())),
    }
}

/// The brokers that run now and left a file in `dir` ([`runtime_dir`] as a rule), by address.
///
/// # Errors
/// When the directory is there but cannot be read, or is not this user's alone.
pub fn running_brokers(dir: &Path) -> io::Result<Vec<RunningBroker>> {
    match check_private(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        checked => checked?,
    }
    let mut brokers = Vec::new();
    for entry in fs::read_dir(dir)? {
        brokers.extend(read(&entry?.path()));
    }
    brokers.sort_by_key(|broker: &RunningBroker| broker.address);
    Ok(brokers)
}

/// The broker of a file, if it runs.
fn read(path: &Path) -> Option<RunningBroker> {
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => toml::from_str(&fs::read_to_string(path).ok()?).ok(),
        // Nobody holds it: the broker that wrote it is gone.
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn make_sure_of(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match create_private_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    check_private(dir)
}

/// Refuses a directory that another user made or can write: in a shared temporary directory anybody may be first.
fn check_private(dir: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !ours || metadata.mode() & 0o077 != 0 {
            let text = format!("`{}` is not a directory of this user alone (owner, mode 0700)", dir.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    #[cfg(not(unix))]
    let _ = metadata;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(dir: &Path) -> RunningBroker {
        RunningBroker {
            address: "127.0.0.1:7433".parse().unwrap(),
            identity: dir.join("admin.pem"),
            data_dir: dir.to_owned(),
        }
    }

    #[test]
    fn a_running_broker_is_found_and_a_stopped_one_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run").join("weir");
        assert_eq!(running_brokers(&dir).unwrap(), []);
        let file = RuntimeFile::write(&dir, &broker(temp.path())).unwrap();
        assert_eq!(running_brokers(&dir).unwrap(), [broker(temp.path())]);
        drop(file);
        assert_eq!(running_brokers(&dir).unwrap(), []);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_file_left_by_a_crash_counts_for_nothing_and_is_taken_over() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("weir");
        let file = RuntimeFile::write(&dir, &broker(temp.path())).unwrap();
        let left = fs::read(&file.path).unwrap();
        let path = file.path.clone();
        drop(file);
        fs::write(&path, [&left[..], b"# and a longer end\n"].concat()).unwrap();
        assert_eq!(running_brokers(&dir).unwrap(), []);
        let _file = RuntimeFile::write(&dir, &broker(temp.path())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), left);
        assert_eq!(running_brokers(&dir).unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("weir");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(RuntimeFile::write(&dir, &broker(temp.path())).is_err());
        assert!(running_brokers(&dir).is_err());
    }
}
