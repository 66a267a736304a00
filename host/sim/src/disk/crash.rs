//! What a power cut leaves: the journal up to the cut, less whatever was not synced and happened to be lost.
//!
//! Owns the knowledge of what is durable. A write counts from the sync of its file on, a name from the sync of its
//! directory on; before that each may be there or not, whatever became of the others.
//!
//! Start at [`Durable`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    blocks::Blocks,
    journal::{FileId, Op},
    tree::{Node, Tree},
};
use crate::rng::Rng;

/// The unit that a disk writes whole; even that one may be torn.
const SECTOR_BYTES: usize = 512;

/// What becomes of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All are lost.
    All,
    /// None is.
    None,
    /// Those behind a moment are lost.
    Suffix,
    /// Any of them is lost.
    Writes,
    /// Any sector of any of them is lost.
    Sectors,
    /// Those behind a moment are lost, and the one of that moment is cut within a sector.
    Torn,
}

impl Loss {
    /// Every kind.
    pub const EVERY: [Loss; 6] = [Loss::All, Loss::None, Loss::Suffix, Loss::Writes, Loss::Sectors, Loss::Torn];
}

/// What is assumed of the machine whose power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutModel {
    /// Nothing survives that was not synced.
    None,
    /// Writes survive in their order, up to a moment.
    Prefix,
    /// Any of the writes survive, each whole.
    Subset,
    /// Any of their sectors of 512 bytes survive.
    Sectors,
    /// Writes survive up to a moment, and the one of that moment is torn within a sector.
    Torn,
    /// Each file by another of these.
    Mixed,
    /// The program is killed, and the machine runs on: nothing is lost, and nothing more is durable.
    Kill,
}

impl CutModel {
    /// Every model.
    pub const EVERY: [CutModel; 7] = [
        CutModel::None,
        CutModel::Prefix,
        CutModel::Subset,
        CutModel::Sectors,
        CutModel::Torn,
        CutModel::Mixed,
        CutModel::Kill,
    ];

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CutModel::None => "none",
            CutModel::Prefix => "prefix",
            CutModel::Subset => "subset",
            CutModel::Sectors => "sectors",
            CutModel::Torn => "torn",
            CutModel::Mixed => "mixed",
            CutModel::Kill => "kill",
        }
    }

    /// A cut by it; `None` where nothing is lost. Names are lost whatever becomes of bytes.
    pub fn cut(self, rng: &mut Rng) -> Option<Cut> {
        let bytes = match self {
            CutModel::None => Some(Loss::All),
            CutModel::Prefix => Some(Loss::Suffix),
            CutModel::Subset => Some(Loss::Writes),
            CutModel::Sectors => Some(Loss::Sectors),
            CutModel::Torn => Some(Loss::Torn),
            CutModel::Mixed => None,
            CutModel::Kill => return None,
        };
        Some(Cut { bytes, names: rng.pick(&[Loss::All, Loss::None, Loss::Suffix, Loss::Writes]) })
    }
}

/// How a cut treats what was not synced.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The bytes of files; `None`: of each file differently.
    pub bytes: Option<Loss>,
    /// The names of directories: only `All`, `None`, `Suffix`, `Writes`.
    pub names: Loss,
}

/// A change of a file since its last sync.
#[derive(Debug, Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    Len(u64),
    Zero(u64, u64),
}

#[derive(Debug, Clone, Default)]
struct FileState {
    synced: Blocks,
    /// The length as programs see it.
    len: u64,
    changes: Vec<Change>,
}

/// A change of a directory since its last sync.
#[derive(Debug, Clone)]
enum Renaming {
    Put(String, Node),
    Move(String, String, Node),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
struct DirState {
    synced: BTreeMap<String, Node>,
    changes: Vec<Renaming>,
}

/// A disk as of a moment of its journal: what is durable, and what may be.
#[derive(Debug, Clone)]
pub struct Durable {
    files: BTreeMap<FileId, FileState>,
    dirs: BTreeMap<PathBuf, DirState>,
}

/// What a cut did, for those who count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Damage {
    /// Writes that were lost, in whole or in part.
    pub writes_lost: usize,
    /// Changes of names that were lost.
    pub names_lost: usize,
}

impl Durable {
    /// A disk on which everything is durable.
    #[must_use]
    pub fn of(tree: &Tree) -> Durable {
        let file = |blocks: &Blocks| FileState { synced: blocks.clone(), len: blocks.len(), changes: Vec::new() };
        let dir = |entries: &BTreeMap<String, Node>| DirState { synced: entries.clone(), changes: Vec::new() };
        Durable {
            files: tree.files.iter().map(|(id, blocks)| (*id, file(blocks))).collect(),
            dirs: tree.dirs.iter().map(|(path, entries)| (path.clone(), dir(entries))).collect(),
        }
    }

    /// Goes on by one entry of the journal.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::MakeDir { parent, name } => {
                self.dir(parent).changes.push(Renaming::Put(name.clone(), Node::Dir));
                self.dirs.entry(parent.join(name)).or_default();
            }
            Op::Create { dir, name, file } => {
                self.files.entry(*file).or_default();
                self.dir(dir).changes.push(Renaming::Put(name.clone(), Node::File(*file)));
            }
            Op::Write { file, offset, data } => {
                let file = self.file(*file);
                let end = offset + data.len() as u64;
                if end > file.len {
                    file.len = end;
                    file.changes.push(Change::Len(end));
                }
                file.changes.push(Change::Write(*offset, data.clone()));
            }
            Op::SetLen { file, len } => {
                let file = self.file(*file);
                file.len = *len;
                file.changes.push(Change::Len(*len));
            }
            Op::Release { file, offset, bytes } => self.file(*file).changes.push(Change::Zero(*offset, *bytes)),
            Op::Sync { file } => self.file(*file).sync(),
            Op::SyncFailed { file, seed } => self.file(*file).fail(&mut Rng::new(*seed)),
            Op::Rename { dir, from, to, file } => {
                self.dir(dir).changes.push(Renaming::Move(from.clone(), to.clone(), Node::File(*file)));
            }
            Op::Remove { dir, name } => self.dir(dir).changes.push(Renaming::Remove(name.clone())),
            Op::SyncDir { dir } => {
                let dir = self.dir(dir);
                let changes = std::mem::take(&mut dir.changes);
                changes.iter().for_each(|change| change.apply(&mut dir.synced));
            }
        }
    }

    fn file(&mut self, id: FileId) -> &mut FileState {
        self.files.get_mut(&id).expect("the journal creates a file before it changes it")
    }

    fn dir(&mut self, path: &Path) -> &mut DirState {
        self.dirs.get_mut(path).expect("the journal makes a directory before it changes it")
    }

    /// How many changes a cut could lose.
    #[must_use]
    pub fn at_stake(&self) -> usize {
        let files: usize = self.files.values().map(|file| file.changes.len()).sum();
        files + self.dirs.values().map(|dir| dir.changes.len()).sum::<usize>()
    }

    /// What is there after a cut.
    #[must_use]
    pub fn crash(&self, cut: Cut, rng: &mut Rng) -> (Tree, Damage) {
        let mut damage = Damage::default();
        let mut entries = BTreeMap::new();
        for (path, dir) in &self.dirs {
            entries.insert(path.clone(), dir.crash(cut.names, rng, &mut damage));
        }
        let mut tree = Tree::default();
        keep_reachable(&entries, Path::new("/"), &mut tree);
        let ids: Vec<FileId> = tree.dirs.values().flat_map(BTreeMap::values).filter_map(|node| node.file()).collect();
        for id in ids {
            let loss = cut.bytes.unwrap_or_else(|| rng.pick(&Loss::EVERY));
            tree.files.insert(id, self.files[&id].crash(loss, rng, &mut damage));
        }
        (tree, damage)
    }

    /// What a program sees after another one was killed: the machine runs on, and nothing is lost but what a failed sync
    /// dropped and the machine forgot.
    #[must_use]
    pub fn seen(&self) -> Tree {
        self.crash(Cut { bytes: Some(Loss::None), names: Loss::None }, &mut Rng::new(0)).0
    }

    /// Every file there ever was.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.files.keys().copied()
    }

    /// What a program sees of a file whose pages the machine has forgotten, but for those that wait for a sync.
    pub(super) fn seen_of(&self, id: FileId) -> Blocks {
        self.files[&id].crash(Loss::None, &mut Rng::new(0), &mut Damage::default())
    }
}

/// Directories whose own name is gone take with them what is in them.
fn keep_reachable(entries: &BTreeMap<PathBuf, BTreeMap<String, Node>>, path: &Path, tree: &mut Tree) {
    let found = entries.get(path).cloned().unwrap_or_default();
    for (name, node) in &found {
        if *node == Node::Dir {
            keep_reachable(entries, &path.join(name), tree);
        }
    }
    tree.dirs.insert(path.to_path_buf(), found);
}

impl Renaming {
    fn apply(&self, entries: &mut BTreeMap<String, Node>) {
        match self {
            Renaming::Put(name, node) => drop(entries.insert(name.clone(), *node)),
            Renaming::Move(from, to, node) => {
                if entries.get(from) == Some(node) {
                    entries.remove(from);
                }
                entries.insert(to.clone(), *node);
            }
            Renaming::Remove(name) => drop(entries.remove(name)),
        }
    }
}

impl DirState {
    fn crash(&self, loss: Loss, rng: &mut Rng, damage: &mut Damage) -> BTreeMap<String, Node> {
        let mut entries = self.synced.clone();
        let kept = rng.below(self.changes.len() + 1);
        for (at, change) in self.changes.iter().enumerate() {
            let keep = match loss {
                Loss::All => false,
                Loss::None => true,
                Loss::Suffix => at < kept,
                Loss::Writes | Loss::Sectors | Loss::Torn => rng.percent(50),
            };
            if keep {
                change.apply(&mut entries);
            } else {
                damage.names_lost += 1;
            }
        }
        entries
    }
}

impl FileState {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            change.apply(&mut self.synced);
        }
    }

    /// Any of the writes are durable, the others are dropped. Lengths are another matter, and stay.
    fn fail(&mut self, rng: &mut Rng) {
        let lens = self.changes.iter().filter(|change| matches!(change, Change::Len(_))).cloned().collect();
        let percent = rng.pick(&[0, 50, 100]);
        for change in std::mem::replace(&mut self.changes, lens) {
            if let Change::Write(offset, data) = change
                && rng.percent(percent)
            {
                self.synced.put(offset, &data);
            }
        }
    }

    fn crash(&self, loss: Loss, rng: &mut Rng, damage: &mut Damage) -> Blocks {
        let mut blocks = self.synced.clone();
        let mut len = blocks.len();
        let kept = rng.below(self.changes.len() + 1);
        // Lengths live in the inode: the later ones replace the earlier, whatever became of the data.
        let len_kept = match loss {
            Loss::None => self.changes.len(),
            Loss::All if rng.percent(50) => 0,
            Loss::Suffix if rng.percent(50) => kept,
            _ => rng.below(self.changes.len() + 1),
        };
        for (at, change) in self.changes.iter().enumerate() {
            match change {
                Change::Len(new) if at < len_kept => {
                    blocks.set_len(*new);
                    len = *new;
                }
                Change::Len(_) => {}
                Change::Zero(offset, bytes) => {
                    if loss == Loss::None || (loss != Loss::All && rng.percent(50)) {
                        blocks.zero(*offset, *bytes);
                    }
                }
                Change::Write(offset, data) => {
                    let whole = match loss {
                        Loss::All => false,
                        Loss::None => true,
                        Loss::Suffix => at < kept,
                        Loss::Writes => rng.percent(50),
                        Loss::Sectors => false,
                        Loss::Torn => at < kept,
                    };
                    if whole {
                        blocks.put(*offset, data);
                        continue;
                    }
                    damage.writes_lost += 1;
                    match loss {
                        Loss::Sectors => put_sectors(&mut blocks, *offset, data, rng),
                        Loss::Torn if at == kept => {
                            blocks.put(*offset, &data[..rng.below(data.len() + 1)]);
                        }
                        _ => {}
                    }
                }
            }
        }
        blocks.set_len(len);
        blocks
    }
}

fn put_sectors(blocks: &mut Blocks, offset: u64, data: &[u8], rng: &mut Rng) {
    // Of some writes nearly all sectors survive, of others hardly any.
    let percent = rng.pick(&[5, 50, 95]);
    for (at, sector) in data.chunks(SECTOR_BYTES).enumerate() {
        if rng.percent(percent) {
            blocks.put(offset + (at * SECTOR_BYTES) as u64, sector);
        }
    }
}

impl Change {
    fn apply(&self, blocks: &mut Blocks) {
        match self {
            Change::Write(offset, data) => blocks.write(*offset, data),
            Change::Len(len) => blocks.set_len(*len),
            Change::Zero(offset, bytes) => blocks.zero(*offset, *bytes),
        }
    }
}
