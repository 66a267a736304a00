//! `state.redb`: one table of checked rows per state table, and the sequence up to which they are applied.
//!
//! Owns the file. Every transaction is two-phase with quick repair: the file is small, and unlike a segment it is
//! rewritten in place, so it is opened after a crash without being read whole. After a failed write or sync it is never
//! written again: its rows are copied to a new file, which takes its name.
//!
//! Start at [`StateFile`].

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::{
    OpenError, StateChange, StateTable, StoreId,
    backend::{FileBackend, FileMeter},
    fault::Fault,
    file_system::{FileSystem, OpenMode},
    format::{FORMAT_KEY, FORMAT_TABLE, FileKind, FormatRow, RowPlace},
    probe,
    segment::{NEW_SUFFIX, remove_if_there},
    sync::{RwLock, Turn},
};

type RowTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Row 0: the store's id and the applied sequence.
const APPLIED_TABLE: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("applied");

const fn table_name(table: StateTable) -> &'static str {
    match table {
        StateTable::Catalog => "catalog",
        StateTable::Producers => "producers",
        StateTable::GroupOffsets => "group-offsets",
        StateTable::Positions => "positions",
        StateTable::PluginState => "plugin-state",
    }
}

const fn row_table(table: StateTable) -> RowTable {
    TableDefinition::new(table_name(table))
}

/// Bytes of rows that are copied in one transaction.
const COPY_BYTES: usize = 4 << 20;

/// The open file.
pub(crate) struct StateFile {
    file_system: Arc<dyn FileSystem>,
    path: PathBuf,
    store: StoreId,
    cache_bytes: usize,
    open: RwLock<OpenState>,
    /// redb has locks that it holds while it reads and writes.
    turn: Turn,
    /// A write or sync failed: what is open is a view of the file that never writes to it.
    failed: AtomicBool,
}

struct OpenState {
    /// `None` once it is closed.
    db: Option<Database>,
    meter: Arc<FileMeter>,
}

impl StateFile {
    /// Opens a file that is there and takes so much of the disk, or makes one in which nothing is applied.
    pub(crate) fn open(
        file_system: &Arc<dyn FileSystem>,
        path: &Path,
        disk_bytes: Option<u64>,
        store: StoreId,
        cache_bytes: usize,
    ) -> Result<StateFile, Fault> {
        let open = open_db(&**file_system, path, disk_bytes, cache_bytes)?;
        let file = StateFile {
            file_system: file_system.clone(),
            path: path.to_path_buf(),
            store,
            cache_bytes,
            open: RwLock::new(open),
            turn: Turn::default(),
            failed: AtomicBool::new(false),
        };
        if disk_bytes.is_none() {
            file.apply(&[], 0)?;
        }
        Ok(file)
    }

    /// Gives the file its final name once it is complete.
    pub(crate) fn rename(&mut self, to: &Path) -> Result<(), Fault> {
        rename(&*self.file_system, &self.path, to)?;
        self.path = to.to_path_buf();
        Ok(())
    }

    /// After a failed write or sync: the file is only read from now on, until [`StateFile::replace`] has made another.
    pub(crate) fn abandon(&self) {
        let _turn = self.turn.take();
        let mut open = self.open.write();
        open.meter.freeze();
        self.failed.store(true, Ordering::Release);
        open.db = None;
        match probe::open_overlay(&*self.file_system, &self.path) {
            Ok(db) => open.db = Some(db),
            Err(fault) => tracing::error!(cause = fault.text(), "the state cannot be read until it is made anew"),
        }
    }

    /// Copies what is in an abandoned file to a new one, which takes its place. Nothing is done where there is no need.
    pub(crate) fn replace(&self) -> Result<(), Fault> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", self.path.display()));
        remove_if_there(&*self.file_system, &new_path)?;
        let mut new = StateFile::open(&self.file_system, &new_path, None, self.store, self.cache_bytes)?;
        self.copy_to(&new)?;
        new.rename(&self.path)?;
        let _turn = self.turn.take();
        let mut open = self.open.write();
        *open = new.open.into_inner();
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes every row, as of one moment, into a new file; the sequence up to which it is applied.
    fn copy_to(&self, new: &StateFile) -> Result<u64, Fault> {
        let snapshot = self.snapshot()?;
        for table in StateTable::ALL {
            let (mut rows, mut bytes, mut copied) = (Vec::new(), 0, Ok(()));
            self.scan(&snapshot, table, &[], |key, value| {
                bytes += key.len() + value.len();
                let (key, value) = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
                rows.push(StateChange { table, key, value });
                if bytes >= COPY_BYTES && copied.is_ok() {
                    // Nothing counts as applied until all of it is.
                    copied = new.apply(&std::mem::take(&mut rows), 0);
                    bytes = 0;
                }
            })?;
            copied?;
            new.apply(&rows, 0)?;
        }
        let applied = self.applied_in(&snapshot)?;
        new.apply(&[], applied)?;
        Ok(applied)
    }

    /// Sets and removes rows, and notes the sequence they reach up to, at once.
    pub(crate) fn apply(&self, changes: &[StateChange], applied: u64) -> Result<(), Fault> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Fault::io(&self.path, "apply to", std::io::Error::other("a write to it failed before")));
        }
        let _turn = self.turn.take();
        let open = self.open.read();
        let mut transaction = self.opened(open.db.as_ref())?.begin_write().map_err(self.fault("apply to"))?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        {
            let mut format = transaction.open_table(FORMAT_TABLE).map_err(self.fault("apply to"))?;
            let row = FormatRow { kind: FileKind::State }.encode();
            if format.get(FORMAT_KEY).map_err(self.fault("apply to"))?.is_none() {
                format.insert(FORMAT_KEY, row.as_slice()).map_err(self.fault("apply to"))?;
            }
        }
        for of_one_table in changes.chunk_by(|a, b| a.table == b.table) {
            let name = table_name(of_one_table[0].table);
            let mut table = transaction.open_table(row_table(of_one_table[0].table)).map_err(self.fault("apply to"))?;
            for StateChange { key, value, .. } in of_one_table {
                match value {
                    Some(value) => {
                        let row = self.place(name, key).seal(value);
                        table.insert(&key[..], row.as_slice()).map_err(self.fault("apply to"))?;
                    }
                    None => {
                        table.remove(&key[..]).map_err(self.fault("apply to"))?;
                    }
                }
            }
        }
        {
            let mut table = transaction.open_table(APPLIED_TABLE).map_err(self.fault("apply to"))?;
            let mut body = self.store.0.to_vec();
            body.extend_from_slice(&applied.to_le_bytes());
            let row = self.place("applied", &[]).seal(&body);
            table.insert(0, row.as_slice()).map_err(self.fault("apply to"))?;
        }
        transaction.commit().map_err(self.fault("apply to"))
    }

    /// The sequence up to which the rows are applied.
    pub(crate) fn applied(&self) -> Result<u64, Fault> {
        self.applied_in(&self.snapshot()?)
    }

    fn applied_in(&self, snapshot: &ReadTransaction) -> Result<u64, Fault> {
        let damaged = || Fault::damaged(&self.path, "its applied sequence is missing, or of another store");
        let table = snapshot.open_table(APPLIED_TABLE).map_err(self.fault("read"))?;
        let row = table.get(0).map_err(self.fault("read"))?.ok_or_else(damaged)?;
        let (store, applied) = open_applied(self.store, row.value()).ok_or_else(damaged)?;
        if store == self.store.0 { Ok(applied) } else { Err(damaged()) }
    }

    pub(crate) fn get(&self, table: StateTable, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let snapshot = self.snapshot()?;
        let _turn = self.turn.take();
        let rows = match snapshot.open_table(row_table(table)) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(self.fault("read")(error)),
        };
        let Some(row) = rows.get(key).map_err(self.fault("read"))? else { return Ok(None) };
        let value = self.open_row(table, key, row.value())?;
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    pub(crate) fn snapshot(&self) -> Result<ReadTransaction, Fault> {
        if self.failed.load(Ordering::Acquire) {
            let mut open = self.open.write();
            if self.failed.load(Ordering::Acquire) && open.db.is_none() {
                // The view of an abandoned file could not be opened then; the disk may be well by now.
                open.db = Some(probe::open_overlay(&*self.file_system, &self.path)?);
            }
        }
        let _turn = self.turn.take();
        self.opened(self.open.read().db.as_ref())?.begin_read().map_err(self.fault("read"))
    }

    /// Visits the rows whose key begins with `prefix`, in order.
    pub(crate) fn scan(
        &self,
        snapshot: &ReadTransaction,
        table: StateTable,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Fault> {
        let _turn = self.turn.take();
        let rows = match snapshot.open_table(row_table(table)) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(self.fault("read")(error)),
        };
        for row in rows.range(prefix..).map_err(self.fault("read"))? {
            let (key, value) = row.map_err(self.fault("read"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            visit(key.value(), self.open_row(table, key.value(), value.value())?);
        }
        Ok(())
    }

    /// Writes every row, as of one moment, into another new file; the sequence up to which it is applied.
    pub(crate) fn copy_to_path(&self, path: &Path) -> Result<u64, Fault> {
        let copy = StateFile::open(&self.file_system, path, None, self.store, self.cache_bytes)?;
        let applied = self.copy_to(&copy)?;
        copy.close()?;
        Ok(applied)
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.open.read().meter.disk_bytes()
    }

    pub(crate) fn close(&self) -> Result<(), Fault> {
        let _turn = self.turn.take();
        self.open.write().db.take().map_or(Ok(()), |db| db.close().map_err(self.fault("close")))
    }

    fn place<'a>(&self, table: &'a str, key: &'a [u8]) -> RowPlace<'a> {
        RowPlace { store: self.store, file: 0, table, key }
    }

    fn open_row<'r>(&self, table: StateTable, key: &[u8], row: &'r [u8]) -> Result<&'r [u8], Fault> {
        let body = self.place(table_name(table), key).open(row);
        body.ok_or_else(|| Fault::damaged(&self.path, format!("a row of `{}` has a wrong checksum", table_name(table))))
    }

    fn opened<'d>(&self, db: Option<&'d Database>) -> Result<&'d Database, Fault> {
        db.ok_or_else(|| Fault::io(&self.path, "read", std::io::Error::other("the store is closed")))
    }

    fn fault<E: Into<redb::Error>>(&self, action: &'static str) -> impl FnOnce(E) -> Fault {
        Fault::redb(&self.path, action)
    }
}

fn open_db(
    file_system: &dyn FileSystem,
    path: &Path,
    disk_bytes: Option<u64>,
    cache_bytes: usize,
) -> Result<OpenState, Fault> {
    let mode = if disk_bytes.is_some() { OpenMode::Existing } else { OpenMode::New };
    let file = file_system.open(path, mode).map_err(|error| Fault::io(path, "open", error))?;
    let meter = Arc::new(FileMeter::starting_at(disk_bytes.unwrap_or(0)));
    let backend = FileBackend::new(file, meter.clone(), None);
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    let db = builder.create_with_backend(backend).map_err(Fault::redb(path, "open"))?;
    Ok(OpenState { db: Some(db), meter })
}

fn rename(file_system: &dyn FileSystem, from: &Path, to: &Path) -> Result<(), Fault> {
    file_system.rename(from, to).map_err(|error| Fault::io(to, "name", error))?;
    let dir = to.parent().unwrap_or(to);
    file_system.sync_dir(dir).map_err(|error| Fault::io(dir, "sync", error))
}

/// Reads all of a file that may be damaged, and may not be touched; the sequence it is applied up to.
pub(crate) fn check(path: &Path, db: &impl ReadableDatabase) -> Result<u64, OpenError> {
    let snapshot = db.begin_read().map_err(Fault::redb(path, "read"))?;
    let format = snapshot.open_table(FORMAT_TABLE).map_err(Fault::redb(path, "read"))?;
    FormatRow { kind: FileKind::State }.check(path, &format)?;
    let damaged = || Fault::damaged(path, "its applied sequence is missing, or has a wrong checksum");
    let table = snapshot.open_table(APPLIED_TABLE).map_err(Fault::redb(path, "read"))?;
    let row = table.get(0).map_err(Fault::redb(path, "read"))?.ok_or_else(damaged)?;
    // Which store it is of is said by the row itself; whoever opens it compares.
    let store = row.value().get(4..20).and_then(|id| id.try_into().ok()).map(StoreId).ok_or_else(damaged)?;
    let (_, applied) = open_applied(store, row.value()).ok_or_else(damaged)?;
    for table in StateTable::ALL {
        check_table(path, store, &snapshot, table)?;
    }
    Ok(applied)
}

fn check_table(path: &Path, store: StoreId, snapshot: &ReadTransaction, table: StateTable) -> Result<(), Fault> {
    visit_rows(path, store, snapshot, table, |_, _| Ok(()))
}

/// Visits the rows of a table in a file that is not ours to write to. `visit` may end it with an error.
pub(crate) fn visit_rows<E: From<Fault>>(
    path: &Path,
    store: StoreId,
    snapshot: &ReadTransaction,
    table: StateTable,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let rows = match snapshot.open_table(row_table(table)) {
        Ok(rows) => rows,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(Fault::redb(path, "read")(error).into()),
    };
    for row in rows.iter().map_err(Fault::redb(path, "read"))? {
        let (key, value) = row.map_err(Fault::redb(path, "read"))?;
        let place = RowPlace { store, file: 0, table: table_name(table), key: key.value() };
        let body = place.open(value.value());
        let body =
            body.ok_or_else(|| Fault::damaged(path, format!("a row of `{}` has a wrong checksum", table_name(table))))?;
        visit(key.value(), body)?;
    }
    Ok(())
}

/// All rows of a small table in a file that is not ours to write to.
pub(crate) fn rows_of(
    path: &Path,
    store: StoreId,
    db: &impl ReadableDatabase,
    table: StateTable,
) -> Result<Vec<(Bytes, Bytes)>, Fault> {
    let snapshot = db.begin_read().map_err(Fault::redb(path, "read"))?;
    let mut rows = Vec::new();
    visit_rows::<Fault>(path, store, &snapshot, table, |key, value| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Ok(())
    })?;
    Ok(rows)
}

/// Store and applied sequence in the row that says so.
pub(crate) fn open_applied(store: StoreId, row: &[u8]) -> Option<([u8; 16], u64)> {
    let body = RowPlace { store, file: 0, table: "applied", key: &[] }.open(row)?;
    let (store, applied) = body.split_first_chunk::<16>()?;
    Some((*store, u64::from_le_bytes(applied.try_into().ok()?)))
}
