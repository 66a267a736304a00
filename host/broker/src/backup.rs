//! Backups of a running broker, and the way back: the store's, and the plugins that its catalog names.
//!
//! Owns the one backup that may be under way, on a thread of its own, and what is known of the last one. A client asks how
//! far it is; nobody has to stay connected for it.
//!
//! Start at [`Backups::begin`] and [`restore`].

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protocol::{
    WireError,
    control::{BackupDone, BackupStatus, RestorableRun, StartBackup},
};
use storage::{
    BackupReport, CopyProgress, Progress, RestoreError, RestorePoint, Restored, Store, StoreOptions,
    sync::{self, JoinHandle, Mutex},
};

use crate::{BackupError, plugin_files::PluginFiles};

/// Puts into the directory of a backup what the caller wants there. May be called more than once.
pub type Beside = Box<dyn FnMut(&Path) -> io::Result<()> + Send>;

/// The backups of a broker.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    last: Mutex<Last>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Last {
    status: Option<BackupStatus>,
    thread: Option<JoinHandle<()>>,
}

impl Backups {
    /// Begins a backup, unless one is being made: the same one is taken for it, another one is in the way.
    pub(crate) fn begin(
        self: &Arc<Self>,
        store: &Store,
        plugins: &PluginFiles,
        start: StartBackup,
        beside: Beside,
    ) -> Result<BackupStatus, BackupError> {
        if !Path::new(&start.to).is_absolute() {
            return Err(BackupError::NotAbsolute { to: start.to });
        }
        let mut last = self.last.lock();
        let before = last.status.as_ref();
        if let Some(running) = before.filter(|status| is_running(status)) {
            return if running.to == start.to {
                Ok(running.clone())
            } else {
                Err(BackupError::UnderWay { to: running.to.clone() })
            };
        }
        let status = BackupStatus {
            number: before.map_or(1, |status| status.number + 1),
            to: start.to.clone(),
            files_done: 0,
            files_total: 0,
            bytes_done: 0,
            bytes_total: 0,
            done: None,
            error: None,
        };
        let (backups, store, plugins) = (self.clone(), store.clone(), plugins.clone());
        let make = move || backups.run(&store, &plugins, &start, beside);
        let thread = sync::spawn("weir-backup", make).map_err(BackupError::Thread)?;
        *last = Last { status: Some(status.clone()), thread: Some(thread) };
        Ok(status)
    }

    /// How far the last one is.
    pub(crate) fn status(&self) -> Option<BackupStatus> {
        self.last.lock().status.clone()
    }

    /// Stops the one that is being made, and waits for that.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let thread = self.last.lock().thread.take();
        if let Some(thread) = thread {
            // It has said what went wrong.
            let _ = thread.join();
        }
    }

    fn run(&self, store: &Store, plugins: &PluginFiles, start: &StartBackup, mut beside: Beside) {
        let mut ending = Ending { backups: self, error: Some(BackupError::Panicked) };
        let to = PathBuf::from(&start.to);
        let keep = start.keep.and_then(|keep| NonZeroUsize::new(keep as usize));
        let mut put_beside = |to: &Path| {
            copy_plugins(plugins, &plugins.elsewhere(to.join("plugins"))?)?;
            beside(to)
        };
        let mut progress = |at: CopyProgress| {
            self.note(at);
            !self.stop.load(Ordering::Acquire)
        };
        ending.error = match store.backup(&to, keep, &mut put_beside, &mut progress) {
            Ok(report) => {
                tracing::info!(to = %to.display(), commits = report.last_sequence, "made a backup");
                self.update(|status| status.done = Some(done(&report)));
                None
            }
            Err(error) => Some(error.into()),
        };
    }

    fn note(&self, at: CopyProgress) {
        self.update(|status| {
            status.files_done = at.files_done as u64;
            status.files_total = at.files_total as u64;
            status.bytes_done = at.bytes_done;
            status.bytes_total = at.bytes_total;
        });
    }

    fn update(&self, change: impl FnOnce(&mut BackupStatus)) {
        if let Some(status) = &mut self.last.lock().status {
            change(status);
        }
    }
}

fn is_running(status: &BackupStatus) -> bool {
    status.done.is_none() && status.error.is_none()
}

/// Says how a backup that did not come to its end ended, also when that was a panic.
struct Ending<'b> {
    backups: &'b Backups,
    error: Option<BackupError>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Some(error) = self.error.take() else { return };
        tracing::warn!(error = &error as &dyn std::error::Error, "a backup was not made");
        self.backups.update(|status| status.error = Some(WireError::from(&error)));
    }
}

fn done(report: &BackupReport) -> BackupDone {
    let run = |run: &storage::Restorable| RestorableRun {
        commit_min: run.commit_min,
        commit_max: run.commit_max,
        time_min_ms: run.time_min_ms,
        time_max_ms: run.time_max_ms,
    };
    BackupDone {
        snapshot_sequence: report.snapshot_sequence,
        last_sequence: report.last_sequence,
        segments_added: report.segments_added as u64,
        segments_kept: report.segments_kept as u64,
        bytes_added: report.bytes_added,
        linked: report.linked,
        files_removed: report.files_removed as u64,
        restorable: report.restorable.iter().map(run).collect(),
    }
}

/// Copies the modules that are not there yet. One that is deleted meanwhile was seen before, or is not needed.
fn copy_plugins(from: &PluginFiles, to: &PluginFiles) -> io::Result<()> {
    let there = to.list()?;
    for hash in from.list()?.difference(&there) {
        match from.read(*hash) {
            Ok(wasm) => to.write(*hash, &wasm)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Restores the store and the plugins of a backup to a point; see [`storage::restore`].
///
/// # Errors
/// As `storage`'s.
pub fn restore(
    from: &Path,
    to: &Path,
    point: RestorePoint,
    options: StoreOptions,
    progress: &mut Progress<'_>,
) -> Result<Restored, RestoreError> {
    let file_system = options.file_system.clone();
    let restored = storage::restore(from, to, point, options, progress)?;
    let plugins = from.join("plugins");
    let kept = PluginFiles::at(plugins.clone(), file_system);
    match kept.elsewhere(restored.dir().join("plugins")).and_then(|files| copy_plugins(&kept, &files)) {
        Ok(()) => Ok(restored),
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            Err(RestoreError::Damaged { file: plugins.display().to_string(), what: source.to_string() })
        }
        Err(source) => Err(RestoreError::Io { action: "copy", file: plugins.display().to_string(), source }),
    }
}
