//! What the server has beside the broker's data when a backup is made or restored: its identity.
//!
//! Owns the rule that the identity goes with a backup only when it is asked for: whoever has it can let anybody in.
//!
//! Start at [`beside`] and [`restore`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use broker::{Beside, Progress, RestoreError, RestorePoint, RestoreReport, StoreOptions};

use crate::private_files::{create_private_dir, sync_dir, write_private_file};

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredServer {
    /// The store.
    pub store: RestoreReport,
    /// Whether the identity was in the backup; else the broker makes itself a new one.
    pub with_identity: bool,
}

/// Puts the identity of a data directory into a backup, if it is to be there.
pub(crate) fn beside(data_dir: &Path, with_identity: bool) -> Beside {
    let from = identity_dir(data_dir);
    Box::new(move |to| if with_identity { copy_private(&from, &identity_dir(to)) } else { Ok(()) })
}

fn identity_dir(dir: &Path) -> PathBuf {
    dir.join("identity")
}

/// Copies the files of a directory that are not there yet; only their owner can read them.
fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    if !to.try_exists()? {
        create_private_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let (target, partial) = (to.join(name), to.join(format!("{}.partial", name.to_string_lossy())));
        if path.is_file() && !target.try_exists()? {
            match fs::remove_file(&partial) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            write_private_file(&partial, &fs::read(&path)?)?;
            fs::rename(&partial, &target)?;
        }
    }
    sync_dir(to)
}

/// Makes a new data directory out of a backup, as the broker stood at a point. No broker may run on it.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    from: &Path,
    to: &Path,
    point: RestorePoint,
    options: StoreOptions,
    progress: &mut Progress<'_>,
) -> Result<RestoredServer, RestoreError> {
    let restored = broker::restore(from, to, point, options, progress)?;
    let identity = identity_dir(from);
    let with_identity = identity.is_dir();
    if with_identity {
        let copied = copy_private(&identity, &identity_dir(restored.dir()));
        let file = identity.display().to_string();
        copied.map_err(|source| RestoreError::Io { action: "copy", file, source })?;
    }
    Ok(RestoredServer { store: restored.finish()?, with_identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn an_identity_is_copied_for_its_owner_alone_and_only_when_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
        fs::create_dir_all(identity_dir(&data)).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(identity_dir(&data).join("ca.key"), "secret").unwrap();
        beside(&data, false)(&to).unwrap();
        assert!(!identity_dir(&to).exists());
        let mut beside = beside(&data, true);
        beside(&to).unwrap();
        beside(&to).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&identity_dir(&to)), 0o700);
        let key = identity_dir(&to).join("ca.key");
        assert_eq!((fs::read_to_string(&key).unwrap().as_str(), mode(&key)), ("secret", 0o600));
    }
}
