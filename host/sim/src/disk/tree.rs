//! Directories and files, as bytes in memory.
//!
//! Start at [`Tree`].

use std::{collections::BTreeMap, path::PathBuf};

use super::{blocks::Blocks, journal::FileId};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A directory, whose path is its parent's and this name.
    Dir,
    /// A file.
    File(FileId),
}

impl Node {
    /// The file, if it is one.
    #[must_use]
    pub fn file(self) -> Option<FileId> {
        match self {
            Node::Dir => None,
            Node::File(file) => Some(file),
        }
    }
}

/// Everything on a disk. Copies are cheap.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The bytes of files, also of those that have no name any more.
    pub files: BTreeMap<FileId, Blocks>,
    /// The names in each directory.
    pub dirs: BTreeMap<PathBuf, BTreeMap<String, Node>>,
}

impl Tree {
    /// A root directory with nothing in it.
    #[must_use]
    pub fn empty() -> Tree {
        Tree { files: BTreeMap::new(), dirs: [("/".into(), BTreeMap::new())].into() }
    }
}
