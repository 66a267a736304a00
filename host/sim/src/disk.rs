//! A disk in memory that notes every call: the store's file system in a simulation.
//!
//! Owns the journal. All calls are done under one lock, and their order is the journal's; what a power cut leaves is
//! computed from it afterwards (`crash`), so that one run is cut as often as one likes.
//!
//! Start at [`SimDisk`].

mod blocks;
mod crash;
mod faults;
mod journal;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use storage::{DirLock, FileEntry, FileSystem, OpenMode, Space, StoreFile, sync};

pub use blocks::Blocks;
pub use crash::{Cut, CutModel, Damage, Durable, Loss};
pub use faults::{FaultKind, Faults};
pub use journal::{FileId, Op};
pub use tree::{Node, Tree};

use self::faults::Call;
use crate::rng::Rng;

/// So large that no budget matters.
const CAPACITY_BYTES: u64 = 1 << 40;

/// How long a sync takes: long enough for commits to gather behind it, as they do on a disk.
const SYNC_DURATION: Duration = Duration::from_micros(60);

/// A disk that does not do what it says: for showing that a simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    /// It does.
    #[default]
    None,
    /// Syncs of files do nothing.
    Syncs,
    /// Syncs of directories do nothing.
    DirSyncs,
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    begun_with: Durable,
    /// What is durable after so many entries of the journal: made when it is asked for.
    durable: (Durable, usize),
    tree: Tree,
    /// Handles on each file: one without a name keeps its blocks as long as there is one.
    handles: BTreeMap<FileId, usize>,
    capacity_bytes: u64,
    taken_bytes: u64,
    unplugged: bool,
    next_file: FileId,
    journal: Vec<Op>,
    locked: BTreeSet<PathBuf>,
    lie: Lie,
    faults: Option<Faults>,
    faults_hit: [u64; FaultKind::EVERY.len()],
    rng: Rng,
}

impl SimDisk {
    /// A disk on which a tree is, durably.
    #[must_use]
    pub fn new(tree: Tree, seed: u64) -> SimDisk {
        let durable = Durable::of(&tree);
        SimDisk::after_kill(tree, durable, seed)
    }

    /// A disk that runs on while programs come and go: what it shows, and what of that is durable.
    #[must_use]
    pub fn after_kill(tree: Tree, durable: Durable, seed: u64) -> SimDisk {
        let next_file = durable.files().max().map_or(1, |last| last + 1);
        SimDisk(Arc::new(Mutex::new(State {
            begun_with: durable.clone(),
            durable: (durable, 0),
            taken_bytes: tree.files.values().map(Blocks::disk_bytes).sum(),
            tree,
            handles: BTreeMap::new(),
            capacity_bytes: CAPACITY_BYTES,
            unplugged: false,
            next_file,
            journal: Vec::new(),
            locked: BTreeSet::new(),
            lie: Lie::None,
            faults: None,
            faults_hit: [0; FaultKind::EVERY.len()],
            rng: Rng::new(seed),
        })))
    }

    /// The same, with a lie.
    #[must_use]
    pub fn lying(self, lie: Lie) -> SimDisk {
        self.0.lock().lie = lie;
        self
    }

    /// How large it is. Where more than that is on it already there is room for nothing.
    #[must_use]
    pub fn sized(self, bytes: u64) -> SimDisk {
        self.0.lock().capacity_bytes = bytes;
        self
    }

    /// Somebody makes room: as much as there is on a large disk.
    pub fn make_room(&self) {
        self.0.lock().capacity_bytes = CAPACITY_BYTES;
    }

    /// What is taken of it.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.0.lock().taken_bytes
    }

    /// Lets every call fail from now on, for ever: for a store that is of no more interest.
    pub fn unplug(&self) {
        self.0.lock().unplugged = true;
    }

    /// What is on it, as programs see it.
    #[must_use]
    pub fn tree(&self) -> Tree {
        self.0.lock().tree.clone()
    }

    /// Lets calls fail from now on, or no more.
    pub fn set_faults(&self, faults: Option<Faults>) {
        self.0.lock().faults = faults;
    }

    /// How many calls failed so far.
    #[must_use]
    pub fn faults_hit(&self) -> u64 {
        self.0.lock().faults_hit.iter().sum()
    }

    /// How many calls failed so.
    #[must_use]
    pub fn faults_of(&self, kind: FaultKind) -> u64 {
        self.0.lock().faults_hit[kind as usize]
    }

    /// How long the journal is: what happens from here on is at this position or behind.
    #[must_use]
    pub fn position(&self) -> usize {
        self.0.lock().journal.len()
    }

    /// What the disk began with, and what was done since.
    #[must_use]
    pub fn history(&self) -> (Durable, Vec<Op>) {
        let state = self.0.lock();
        (state.begun_with.clone(), state.journal.clone())
    }

    /// The same, but for what was done later.
    #[must_use]
    pub fn history_until(&self, position: usize) -> (Durable, Vec<Op>) {
        let state = self.0.lock();
        (state.begun_with.clone(), state.journal[..position].to_vec())
    }

    /// What was done from a position of the journal on, for people.
    #[must_use]
    pub fn told_since(&self, position: usize) -> Vec<String> {
        self.0.lock().journal[position..].iter().map(Op::text).collect()
    }

    /// At each call another thread may come first.
    fn called(&self) -> MutexGuard<'_, State> {
        sync::pause();
        self.0.lock()
    }

    fn read<R>(&self, call: Call, read: impl FnOnce(&Tree) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.called();
        state.call(call)?;
        read(&state.tree)
    }
}

impl State {
    /// Counts a call, which fails if it is its turn to.
    fn call(&mut self, call: Call) -> io::Result<()> {
        if self.unplugged {
            return Err(io::Error::other("there is no such disk any more"));
        }
        let Some(faults) = self.faults.as_mut().filter(|faults| faults.kind.hits(call)) else { return Ok(()) };
        if faults.after > 0 {
            faults.after -= 1;
            return Ok(());
        }
        if faults.count == 0 {
            return Ok(());
        }
        faults.count -= 1;
        self.faults_hit[faults.kind as usize] += 1;
        Err(faults.kind.error())
    }

    fn entries(&mut self, dir: &Path) -> io::Result<&mut BTreeMap<String, Node>> {
        self.tree.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_at(&mut self, path: &Path) -> io::Result<FileId> {
        let (dir, name) = split(path)?;
        let node = self.entries(&dir)?.get(&name).copied();
        node.and_then(Node::file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn blocks(&mut self, file: FileId) -> &mut Blocks {
        self.tree.files.get_mut(&file).expect("a file is forgotten when nobody has it")
    }

    /// Changes a file, and counts what it takes.
    fn change(&mut self, file: FileId, change: impl FnOnce(&mut Blocks)) {
        let blocks = self.tree.files.get_mut(&file).expect("a file is forgotten when nobody has it");
        let before = blocks.disk_bytes();
        change(blocks);
        self.taken_bytes = self.taken_bytes - before + blocks.disk_bytes();
    }

    /// Whether there are blocks for a range of a file.
    fn room_for(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        let left = self.capacity_bytes.saturating_sub(self.taken_bytes);
        let missing = self.blocks(file).missing_bytes(offset, bytes);
        if missing > left {
            self.faults_hit[FaultKind::Full as usize] += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room_for(file, offset, data.len() as u64)?;
        self.change(file, |blocks| blocks.write(offset, data));
        self.journal.push(Op::Write { file, offset, data: data.into() });
        Ok(())
    }

    /// Gives back the blocks of a file that has neither name nor handle.
    fn forget_if_unused(&mut self, file: FileId) {
        let is_named = self.tree.dirs.values().flat_map(BTreeMap::values).any(|node| node.file() == Some(file));
        if !is_named && !self.handles.contains_key(&file) {
            let blocks = self.tree.files.remove(&file);
            self.taken_bytes -= blocks.map_or(0, |blocks| blocks.disk_bytes());
        }
    }

    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.call(Call::SyncDir)?;
        self.entries(dir)?;
        if self.lie != Lie::DirSyncs {
            self.journal.push(Op::SyncDir { dir: dir.to_path_buf() });
        }
        Ok(())
    }

    fn fail_sync(&mut self, file: FileId) {
        let evict = self.faults.is_some_and(|faults| faults.evict);
        let seed = self.rng.number();
        self.journal.push(Op::SyncFailed { file, seed });
        if evict {
            self.forget_cached(file);
        }
    }

    /// Reads are from the disk now: what a failed sync dropped is gone, what waits for a sync is not.
    fn forget_cached(&mut self, file: FileId) {
        let (durable, until) = &mut self.durable;
        self.journal[*until..].iter().for_each(|op| durable.step(op));
        *until = self.journal.len();
        let seen = durable.seen_of(file);
        self.change(file, |blocks| *blocks = seen);
    }
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let parts = path.parent().zip(path.file_name());
    let (dir, name) = parts.ok_or(io::ErrorKind::InvalidInput)?;
    Ok((dir.to_path_buf(), name.to_string_lossy().into_owned()))
}

impl FileSystem for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.called();
        let missing: Vec<&Path> = dir.ancestors().take_while(|at| !state.tree.dirs.contains_key(*at)).collect();
        for path in missing.iter().rev() {
            state.call(Call::Create)?;
            let (parent, name) = split(path)?;
            state.entries(&parent)?.insert(name.clone(), Node::Dir);
            state.tree.dirs.insert(path.to_path_buf(), Default::default());
            state.journal.push(Op::MakeDir { parent, name });
        }
        // As on the host: what was there is not looked at, what was made is durable at the end, and a cut may come between.
        missing.iter().filter_map(|path| path.parent()).try_for_each(|parent| state.sync_dir(parent))
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        let free = self.called().locked.insert(dir.to_path_buf());
        Ok(free.then(|| Box::new(SimLock { disk: self.clone(), dir: dir.to_path_buf() }) as Box<dyn DirLock>))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        self.read(Call::List, |tree| {
            let Some(entries) = tree.dirs.get(dir) else { return Ok(Vec::new()) };
            let files = entries.iter().filter_map(|(name, node)| Some((name, node.file()?)));
            let entry = |(name, file): (&String, FileId)| FileEntry {
                name: name.clone(),
                disk_bytes: tree.files[&file].disk_bytes(),
            };
            Ok(files.map(entry).collect())
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StoreFile>> {
        let mut state = self.called();
        state.call(if mode == OpenMode::New { Call::Create } else { Call::Open })?;
        let found = state.file_at(path);
        let file = match (mode, found) {
            (OpenMode::New, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::New, Err(_)) => {
                let (dir, name) = split(path)?;
                let file = state.next_file;
                state.entries(&dir)?.insert(name.clone(), Node::File(file));
                state.next_file += 1;
                state.tree.files.insert(file, Blocks::default());
                state.journal.push(Op::Create { dir, name, file });
                file
            }
            (_, found) => found?,
        };
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile { disk: self.clone(), file, writable: mode != OpenMode::ReadOnly }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.called();
        state.call(Call::Remove)?;
        let file = state.file_at(path)?;
        let (dir, name) = split(path)?;
        state.entries(&dir)?.remove(&name);
        state.journal.push(Op::Remove { dir, name });
        state.forget_if_unused(file);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.called();
        state.call(Call::Rename)?;
        let file = state.file_at(from)?;
        let ((dir, from), (to_dir, to)) = (split(from)?, split(to)?);
        assert_eq!(dir, to_dir, "a store renames within a directory");
        let entries = state.entries(&dir)?;
        entries.remove(&from);
        let replaced = entries.insert(to.clone(), Node::File(file)).and_then(Node::file);
        state.journal.push(Op::Rename { dir, from, to, file });
        if let Some(replaced) = replaced.filter(|replaced| *replaced != file) {
            state.forget_if_unused(replaced);
        }
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.called();
        state.call(Call::Create)?;
        let file = state.file_at(from)?;
        if state.file_at(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = split(to)?;
        state.entries(&dir)?.insert(name.clone(), Node::File(file));
        state.journal.push(Op::Create { dir, name, file });
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let mut state = self.called();
        state.call(Call::Look)?;
        let available_bytes = state.capacity_bytes.saturating_sub(state.taken_bytes);
        Ok(Space { total_bytes: state.capacity_bytes, available_bytes })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.called().sync_dir(dir)
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    dir: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.0.lock().locked.remove(&self.dir);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: FileId,
    writable: bool,
}

impl SimFile {
    fn change<R>(&self, change: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        change(&mut self.disk.called())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        let handles = state.handles.get_mut(&self.file).expect("a handle is counted from its opening on");
        *handles -= 1;
        if *handles == 0 {
            state.handles.remove(&self.file);
            state.forget_if_unused(self.file);
        }
    }
}

impl StoreFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.read(Call::Look, |tree| Ok(tree.files[&self.file].len()))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(Call::Read, |tree| match tree.files[&self.file].read(offset, out) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|state| match state.call(Call::Write) {
            Ok(()) => state.write(self.file, offset, data),
            Err(error) => {
                // A write that fails has often done a part of its work.
                if !state.unplugged {
                    let _ = state.write(self.file, offset, &data[..data.len() / 2]);
                }
                Err(error)
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| {
            state.call(Call::Resize)?;
            state.change(self.file, |blocks| blocks.set_len(len));
            state.journal.push(Op::SetLen { file: self.file, len });
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        sync::sleep(SYNC_DURATION);
        // Also through a handle that only reads.
        let mut state = self.disk.called();
        if let Err(error) = state.call(Call::Sync) {
            if !state.unplugged {
                state.fail_sync(self.file);
            }
            return Err(error);
        }
        if state.lie != Lie::Syncs {
            state.journal.push(Op::Sync { file: self.file });
        }
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut state = self.disk.called();
        state.call(Call::Look)?;
        state.forget_cached(self.file);
        Ok(())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(|state| {
            state.call(Call::Grow)?;
            state.room_for(self.file, offset, bytes)?;
            state.change(self.file, |blocks| blocks.allocate(offset, bytes));
            Ok(())
        })
    }

    fn release(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(|state| {
            state.call(Call::Resize)?;
            state.change(self.file, |blocks| blocks.zero(offset, bytes));
            state.journal.push(Op::Release { file: self.file, offset, bytes });
            Ok(())
        })
    }
}
