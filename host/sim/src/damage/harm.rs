//! What is done to the files of a store: one bit, a page, a whole file.
//!
//! Owns bytes alone; what it costs is `patient`'s to know, and what came of it `examine`'s.
//!
//! Start at [`Harm::by_chance`].

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::patient::{PAGE_BYTES, Patient, Touched};
use crate::{
    disk::{Blocks, Node, Tree},
    rng::Rng,
};

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One bit.
    Flip,
    /// A page of zeros.
    ZeroPage,
    /// A sector of zeros.
    ZeroSector,
    /// Two pages of a file have changed places.
    Swap,
    /// A page is as it was once.
    Stale,
    /// A page is a copy of another one of its file.
    Duplicate,
    /// A page of another store's.
    ForeignPage,
    /// A page of another file of the store.
    OtherPage,
    /// The end of a file is missing.
    Truncate,
    /// There is something behind the end of a file.
    Extend,
    /// A file of another store.
    ForeignFile,
    /// A file as it was before another one got its name.
    Elder,
    /// A copy of another file of the store.
    OtherFile,
    /// A file is gone.
    Missing,
    /// Two files have each other's name.
    Exchange,
    /// A file has no bytes.
    Empty,
}

impl Kind {
    /// Every kind.
    pub const EVERY: [Kind; 16] = [
        Kind::Flip,
        Kind::ZeroPage,
        Kind::ZeroSector,
        Kind::Swap,
        Kind::Stale,
        Kind::Duplicate,
        Kind::ForeignPage,
        Kind::OtherPage,
        Kind::Truncate,
        Kind::Extend,
        Kind::ForeignFile,
        Kind::Elder,
        Kind::OtherFile,
        Kind::Missing,
        Kind::Exchange,
        Kind::Empty,
    ];

    /// Whether sound bytes of another time or place are in it: where they are the last there is of the log, a store cannot
    /// know that there was more.
    #[must_use]
    pub fn is_sound_elsewhere(self) -> bool {
        matches!(
            self,
            Kind::Stale
                | Kind::Elder
                | Kind::ForeignFile
                | Kind::OtherFile
                | Kind::Missing
                | Kind::Exchange
                | Kind::Empty
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Flip => "a bit flipped",
            Kind::ZeroPage => "a page zeroed",
            Kind::ZeroSector => "a sector zeroed",
            Kind::Swap => "two pages swapped",
            Kind::Stale => "a page of before",
            Kind::Duplicate => "a page twice",
            Kind::ForeignPage => "a page of another store",
            Kind::OtherPage => "a page of another file",
            Kind::Truncate => "a file cut off",
            Kind::Extend => "a file extended",
            Kind::ForeignFile => "a file of another store",
            Kind::Elder => "a file of before",
            Kind::OtherFile => "a copy of another file",
            Kind::Missing => "a file gone",
            Kind::Exchange => "two files exchanged",
            Kind::Empty => "a file emptied",
        })
    }
}

/// Files that are to be as given; `None`: gone.
#[derive(Debug, Clone)]
pub struct Harm {
    /// Which kind.
    pub kind: Kind,
    /// What exactly, for people.
    pub what: String,
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Harm {
    /// Flips one bit of a file.
    #[must_use]
    pub fn flip(patient: &Patient, file: &Path, at: usize, bit: u32) -> Harm {
        let mut bytes = patient.files[file].clone();
        bytes[at] ^= 1 << bit;
        Harm::one(Kind::Flip, format!("bit {bit} of byte {at} of `{}`", file.display()), file, Some(bytes))
    }

    /// Some damage of a kind; `None` where the store has nothing that it could be done to.
    #[must_use]
    pub fn by_chance(kind: Kind, patient: &Patient, stranger: &Patient, rng: &mut Rng) -> Option<Harm> {
        let names: Vec<&PathBuf> = patient.files.keys().collect();
        let file = names[rng.below(names.len())];
        let bytes = &patient.files[file];
        let name = file.display();
        match kind {
            Kind::Flip => (!bytes.is_empty()).then(|| {
                let at = rng.below(bytes.len());
                Harm::flip(patient, file, at, rng.below(8) as u32)
            }),
            Kind::ZeroPage => Harm::over(kind, patient, file, rng, PAGE_BYTES, vec![0; PAGE_BYTES]),
            Kind::ZeroSector => Harm::over(kind, patient, file, rng, SECTOR_BYTES, vec![0; SECTOR_BYTES]),
            Kind::Duplicate => {
                let page = page(bytes, rng)?;
                Harm::over(kind, patient, file, rng, PAGE_BYTES, page)
            }
            Kind::ForeignPage => {
                let page = page(any(&stranger.files, rng), rng)?;
                Harm::over(kind, patient, file, rng, PAGE_BYTES, page)
            }
            Kind::OtherPage => {
                let page = page(any(&patient.files, rng), rng)?;
                Harm::over(kind, patient, file, rng, PAGE_BYTES, page)
            }
            Kind::Stale => {
                let (file, at, page) = patient.stale.get(rng.below(patient.stale.len().max(1)))?;
                let mut bytes = patient.files[file].clone();
                bytes.get_mut(*at..at + PAGE_BYTES)?.copy_from_slice(page);
                Some(Harm::one(kind, format!("page at {at} of `{}` as it was", file.display()), file, Some(bytes)))
            }
            Kind::Swap => {
                let pages = bytes.len() / PAGE_BYTES;
                let (a, b) = (rng.below(pages.max(1)), rng.below(pages.max(1)));
                let mut swapped = bytes.clone();
                (pages > 1 && a != b).then(|| {
                    for at in 0..PAGE_BYTES {
                        swapped.swap(a * PAGE_BYTES + at, b * PAGE_BYTES + at);
                    }
                    Harm::one(kind, format!("pages {a} and {b} of `{name}`"), file, Some(swapped))
                })
            }
            Kind::Truncate => (!bytes.is_empty()).then(|| {
                let left = rng.below(bytes.len());
                let left = if rng.percent(50) { left / PAGE_BYTES * PAGE_BYTES } else { left };
                Harm::one(kind, format!("`{name}` behind {left}"), file, Some(bytes[..left].to_vec()))
            }),
            Kind::Extend => {
                let (more, page) = (rng.pick(&[1, 100, PAGE_BYTES, 3 * PAGE_BYTES]), page(bytes, rng));
                let more = if rng.percent(50) { rng.bytes(more) } else { page.unwrap_or_else(|| vec![0; more]) };
                let what = format!("`{name}` by {}", more.len());
                Some(Harm::one(kind, what, file, Some([bytes.clone(), more].concat())))
            }
            Kind::ForeignFile => {
                let other = stranger.files.get(file).map_or_else(|| any(&stranger.files, rng), |bytes| &bytes[..]);
                Some(Harm::one(kind, format!("`{name}`"), file, Some(other.to_vec())))
            }
            Kind::Elder => {
                let elders: Vec<_> = patient.elders.iter().collect();
                let (file, bytes) = elders.get(rng.below(elders.len().max(1)))?;
                Some(Harm::one(kind, format!("`{}`", file.display()), file, Some((*bytes).clone())))
            }
            Kind::OtherFile => {
                let other = names[rng.below(names.len())];
                let what = format!("`{}` is now `{name}`", other.display());
                (other != file).then(|| Harm::one(kind, what, file, Some(patient.files[other].clone())))
            }
            Kind::Missing => Some(Harm::one(kind, format!("`{name}`"), file, None)),
            Kind::Exchange => {
                let other = names[rng.below(names.len())];
                let what = format!("`{name}` and `{}`", other.display());
                let mut harm = Harm::one(kind, what, file, Some(patient.files[other].clone()));
                harm.files.insert(other.clone(), Some(bytes.clone()));
                (other != file).then_some(harm)
            }
            Kind::Empty => Some(Harm::one(kind, format!("`{name}`"), file, Some(Vec::new()))),
        }
    }

    fn one(kind: Kind, what: String, file: &Path, bytes: Option<Vec<u8>>) -> Harm {
        Harm { kind, what, files: [(file.to_path_buf(), bytes)].into() }
    }

    /// Puts bytes over a unit of a file, any of them.
    fn over(kind: Kind, patient: &Patient, file: &PathBuf, rng: &mut Rng, unit: usize, with: Vec<u8>) -> Option<Harm> {
        let mut bytes = patient.files[file].clone();
        let at = rng.below((bytes.len() / unit).max(1)) * unit;
        let end = (at + unit).min(bytes.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        let what = format!("{at}..{end} of `{}`", file.display());
        (at < end).then(|| Harm::one(kind, what, file, Some(bytes)))
    }

    /// What the first of the files is to the store.
    #[must_use]
    pub fn part_of_store(&self) -> &'static str {
        let name = self.files.keys().next().and_then(|file| file.file_name()).unwrap_or_default().to_string_lossy();
        match &*name {
            "state.redb" => "state",
            name if name.ends_with(".index") => "index",
            name if name.ends_with(".redb") => "segment",
            _ => "other",
        }
    }

    /// The bytes that differ from what they were, in runs.
    #[must_use]
    pub fn touched(&self, patient: &Patient) -> Vec<Touched> {
        let mut touched = Vec::new();
        for (file, bytes) in &self.files {
            let was = patient.files.get(file).map_or(&[][..], |bytes| &bytes[..]);
            let is = bytes.as_deref().unwrap_or_default();
            let mut at = 0;
            while at < was.len().max(is.len()) {
                let start = at;
                while at < was.len().max(is.len()) && was.get(at) != is.get(at) {
                    at += 1;
                }
                if at > start {
                    touched.push(Touched { file: file.clone(), range: start..at });
                }
                at += 1;
            }
        }
        touched
    }

    /// The store's disk with this done to it.
    #[must_use]
    pub fn done_to(&self, patient: &Patient) -> Tree {
        let mut tree = patient.tree.clone();
        for (path, bytes) in &self.files {
            let (dir, name) = (path.parent().expect("files are in directories"), path.file_name().unwrap_or_default());
            let name = name.to_string_lossy().into_owned();
            let entries = tree.dirs.get_mut(dir).expect("files are in directories that are there");
            match (bytes, entries.get(&name).copied().and_then(Node::file)) {
                (None, _) => drop(entries.remove(&name)),
                (Some(bytes), Some(file)) => {
                    let mut blocks = tree.files.get(&file).cloned().unwrap_or_default();
                    rewrite(&mut blocks, &patient.files[path], bytes);
                    tree.files.insert(file, blocks);
                }
                (Some(_), None) => unreachable!("only files that are there are harmed"),
            }
        }
        tree
    }
}

/// Makes a file have these bytes, page by page, so that what is as it was stays shared and holes stay holes.
fn rewrite(blocks: &mut Blocks, was: &[u8], is: &[u8]) {
    blocks.set_len(is.len() as u64);
    for (at, page) in is.chunks(PAGE_BYTES).enumerate() {
        let at = at * PAGE_BYTES;
        if was.get(at..at + page.len()) != Some(page) {
            blocks.write(at as u64, page);
        }
    }
}

fn any<'f>(files: &'f BTreeMap<PathBuf, Vec<u8>>, rng: &mut Rng) -> &'f [u8] {
    let at = rng.below(files.len());
    files.values().nth(at).map_or(&[], |bytes| &bytes[..])
}

/// A page of a file that has one.
fn page(bytes: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let pages = bytes.len() / PAGE_BYTES;
    let at = rng.below(pages.max(1)) * PAGE_BYTES;
    bytes.get(at..at + PAGE_BYTES).map(<[u8]>::to_vec)
}
