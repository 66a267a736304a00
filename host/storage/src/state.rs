//! The projected state: rows that commits set, kept in `state.redb`, applied behind the log on a thread of its own.
//!
//! Owns the overlay: what is committed but not applied yet. Readers look there first, so they always see the last
//! commit. The overlay is bounded; at its bound the committer waits.
//!
//! Invariants
//! - The applied sequence is in the same transaction as the rows: after a crash, replaying the commits behind it gives
//!   the state again.
//! - Losing the file loses nothing: it can be rebuilt from the segments (`recovery`).
//!
//! Start at [`State`].

use std::{collections::BTreeMap, ops::Bound, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    StateChange, StateTable,
    fault::Fault,
    state_file::StateFile,
    sync::{self, Condvar, JoinHandle, Mutex},
};

/// How long changes wait in the overlay for others to be applied with: each transaction costs two syncs beside the
/// committer's own.
const APPLY_DELAY: Duration = Duration::from_millis(500);

/// How often applying is tried after it failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a row of the overlay costs beside its bytes.
const OVERHEAD_BYTES: usize = 96;

/// The state of a store.
pub(crate) struct State {
    shared: Arc<Shared>,
    projector: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    file: StateFile,
    overlay: Mutex<Overlay>,
    /// The projector waits here for work.
    work: Condvar,
    /// Others wait here for the projector.
    progress: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct Overlay {
    rows: [BTreeMap<Bytes, Row>; StateTable::ALL.len()],
    bytes: usize,
    /// The last sequence whose changes are here or applied.
    committed: u64,
    applied: u64,
    /// Somebody waits for `applied` to reach `committed`.
    hurry: bool,
    stop: bool,
    failed: Option<String>,
}

struct Row {
    sequence: u64,
    value: Option<Bytes>,
}

impl State {
    /// Takes a file whose applied sequence is known, and starts the projector.
    pub(crate) fn start(file: StateFile, applied: u64, bytes_max: usize) -> std::io::Result<State> {
        let overlay = Overlay { committed: applied, applied, ..Overlay::default() };
        let shared = Arc::new(Shared {
            file,
            overlay: Mutex::new(overlay),
            work: Condvar::new(),
            progress: Condvar::new(),
            bytes_max,
        });
        let projector = {
            let shared = shared.clone();
            sync::spawn("weir-projector", move || shared.project())?
        };
        Ok(State { shared, projector: Mutex::new(Some(projector)) })
    }

    /// Adds what a commit set. It is seen by readers from here on.
    pub(crate) fn push(&self, sequence: u64, changes: impl IntoIterator<Item = StateChange>) {
        let mut overlay = self.shared.overlay.lock();
        for change in changes {
            overlay.insert(sequence, change);
        }
        overlay.committed = overlay.committed.max(sequence);
        // After a failure the projector waits for the disk: were it woken by each commit, it would wait as long as there
        // are any.
        if overlay.failed.is_none() {
            self.shared.work.notify_one();
        }
    }

    /// Waits until the overlay is below its bound. An error when the projector has failed, and it will not shrink for now.
    pub(crate) fn wait_for_room(&self) -> Result<(), String> {
        let mut overlay = self.shared.overlay.lock();
        while overlay.bytes >= self.shared.bytes_max {
            if let Some(failed) = &overlay.failed {
                return Err(failed.clone());
            }
            self.shared.progress.wait(&mut overlay);
        }
        Ok(())
    }

    /// Waits until everything pushed so far is in the file.
    pub(crate) fn flush(&self) -> Result<(), String> {
        let mut overlay = self.shared.overlay.lock();
        let target = overlay.committed;
        while overlay.applied < target {
            if let Some(failed) = &overlay.failed {
                return Err(failed.clone());
            }
            overlay.hurry = true;
            self.shared.work.notify_one();
            self.shared.progress.wait(&mut overlay);
        }
        Ok(())
    }

    /// Why nothing can be applied for now, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.overlay.lock().failed.clone()
    }

    /// The last sequence that is in the file.
    pub(crate) fn applied(&self) -> u64 {
        self.shared.overlay.lock().applied
    }

    pub(crate) fn get(&self, table: StateTable, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(row) = self.shared.overlay.lock().rows[table as usize].get(key) {
            return Ok(row.value.clone());
        }
        self.shared.file.get(table, key)
    }

    /// The rows whose key begins with `prefix`, in order.
    pub(crate) fn scan(&self, table: StateTable, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        // Snapshot and overlay are taken together: between two moments the projector could carry a row from the one we
        // had not looked at yet to the one we had.
        let (snapshot, overlay) = {
            let overlay = self.shared.overlay.lock();
            let rows = overlay.rows[table as usize].range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
            let rows = rows.take_while(|(key, _)| key.starts_with(prefix));
            let rows: BTreeMap<Bytes, Option<Bytes>> =
                rows.map(|(key, row)| (key.clone(), row.value.clone())).collect();
            (self.shared.file.snapshot()?, rows)
        };
        let mut merged = overlay;
        self.shared.file.scan(&snapshot, table, prefix, |key, value| {
            if !merged.contains_key(key) {
                merged.insert(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
            }
        })?;
        Ok(merged.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    /// Writes what is applied into a new file; up to which sequence that is.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<u64, Fault> {
        self.shared.file.copy_to_path(path)
    }

    /// What the file takes of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.shared.file.disk_bytes()
    }

    /// Applies everything, and ends the projector.
    pub(crate) fn close(&self) -> Result<(), String> {
        let flushed = self.flush();
        self.shared.overlay.lock().stop = true;
        self.shared.work.notify_one();
        if let Some(projector) = self.projector.lock().take()
            && projector.join().is_err()
        {
            return Err("the projector panicked".into());
        }
        flushed.and_then(|()| self.shared.file.close().map_err(|fault| fault.text()))
    }
}

impl Drop for State {
    /// Ends the projector of a store that was not closed, or never opened.
    fn drop(&mut self) {
        self.shared.overlay.lock().stop = true;
        self.shared.work.notify_one();
        if let Some(projector) = self.projector.lock().take() {
            // What it would say was logged.
            let _ = projector.join();
        }
    }
}

/// Tells those who wait for the projector when it is no more.
struct Farewell<'s>(&'s Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.overlay.lock().failed = Some("the projector panicked".into());
        }
        self.0.progress.notify_all();
    }
}

impl Overlay {
    fn insert(&mut self, sequence: u64, change: StateChange) {
        let StateChange { table, key, value } = change;
        let cost =
            |key: &Bytes, value: &Option<Bytes>| OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len);
        self.bytes += cost(&key, &value);
        let before = self.rows[table as usize].insert(key.clone(), Row { sequence, value });
        if let Some(before) = before {
            self.bytes -= cost(&key, &before.value);
        }
    }

    /// Forgets what was applied, but for rows that were set again since.
    fn settle(&mut self, applied: u64) {
        self.applied = applied;
        let mut bytes = 0;
        for rows in &mut self.rows {
            rows.retain(|_, row| row.sequence > applied);
            let cost =
                |(key, row): (&Bytes, &Row)| OVERHEAD_BYTES + key.len() + row.value.as_ref().map_or(0, Bytes::len);
            bytes += rows.iter().map(cost).sum::<usize>();
        }
        self.bytes = bytes;
    }

    fn is_empty(&self) -> bool {
        self.rows.iter().all(BTreeMap::is_empty)
    }

    fn all(&self) -> Vec<StateChange> {
        let mut all = Vec::new();
        for table in StateTable::ALL {
            let rows = self.rows[table as usize].iter();
            all.extend(rows.map(|(key, row)| StateChange { table, key: key.clone(), value: row.value.clone() }));
        }
        all
    }
}

impl Shared {
    fn project(&self) {
        let _farewell = Farewell(self);
        while let Some((changes, target)) = self.next_work() {
            let result = self.file.replace().and_then(|()| self.file.apply(&changes, target));
            if let Err(fault) = &result {
                tracing::error!(cause = fault.text(), "the state cannot be applied yet; the log goes on without");
                self.file.abandon();
            }
            let mut overlay = self.overlay.lock();
            if result.is_ok() {
                overlay.settle(target);
            }
            overlay.failed = result.err().map(|fault| fault.text());
            overlay.hurry = false;
            self.progress.notify_all();
        }
    }

    /// Waits for changes worth a transaction; `None` at the end.
    fn next_work(&self) -> Option<(Vec<StateChange>, u64)> {
        let mut overlay = self.overlay.lock();
        loop {
            if overlay.stop {
                return None;
            }
            if overlay.failed.is_some() {
                // Whatever else there is to do, it waits for the disk.
                if self.work.wait_for(&mut overlay, RETRY_INTERVAL).timed_out() {
                    return Some((overlay.all(), overlay.committed));
                }
                continue;
            }
            let full = overlay.bytes >= self.bytes_max / 4;
            let behind = overlay.applied < overlay.committed;
            if full || (overlay.hurry && behind) {
                return Some((overlay.all(), overlay.committed));
            }
            if overlay.is_empty() {
                // Commits without state need no transaction, only a note of how far they reach when somebody asks.
                self.work.wait(&mut overlay);
            } else if self.work.wait_for(&mut overlay, APPLY_DELAY).timed_out() && !overlay.is_empty() {
                return Some((overlay.all(), overlay.committed));
            }
        }
    }
}
