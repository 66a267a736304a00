//! Which fields stay, and under which names.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Renamings are counted in the bits of a number.
const RENAMES_MAX: usize = 64;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    keep: Option<Vec<String>>,
    drop: Option<Vec<String>>,
    #[serde(default)]
    rename: BTreeMap<String, String>,
}

/// The configuration, checked.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
pub(crate) struct Fields {
    chosen: Chosen,
    pub(crate) renames: Vec<Rename>,
}

enum Chosen {
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

pub(crate) struct Rename {
    pub(crate) from: String,
    pub(crate) to: String,
}

/// What becomes of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Kept,
    Dropped,
    /// By this one of the renamings.
    Renamed(usize),
}

impl TryFrom<Config> for Fields {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let chosen = match (config.keep, config.drop) {
            (Some(_), Some(_)) => return Err("both `keep` and `drop` are given".to_owned()),
            (None, None) if config.rename.is_empty() => {
                return Err("none of `keep`, `drop`, `rename` is given".to_owned());
            }
            (Some(keep), None) => Chosen::Only(keep),
            (None, Some(drop)) => Chosen::AllBut(drop),
            (None, None) => Chosen::All,
        };
        let renames: Vec<Rename> = config.rename.into_iter().map(|(from, to)| Rename { from, to }).collect();
        if renames.len() > RENAMES_MAX {
            return Err(format!("{} fields are renamed, {RENAMES_MAX} can be", renames.len()));
        }
        for (at, rename) in renames.iter().enumerate() {
            if !chosen.contains(&rename.from) {
                return Err(format!("`{}` is renamed but does not stay", rename.from));
            }
            if renames[..at].iter().any(|other| other.to == rename.to) {
                return Err(format!("two fields are renamed to `{}`", rename.to));
            }
        }
        Ok(Fields { chosen, renames })
    }
}

impl Fields {
    pub(crate) fn place(&self, name: &str) -> Place {
        if !self.chosen.contains(name) {
            return Place::Dropped;
        }
        self.renames.iter().position(|rename| rename.from == name).map_or(Place::Kept, Place::Renamed)
    }

    /// The renamings to this name, a bit each.
    pub(crate) fn renames_to(&self, name: &str) -> u64 {
        self.renames.iter().position(|rename| rename.to == name).map_or(0, |index| 1 << index)
    }
}

impl Chosen {
    fn contains(&self, name: &str) -> bool {
        match self {
            Chosen::All => true,
            Chosen::Only(names) => names.iter().any(|other| other == name),
            Chosen::AllBut(names) => !names.iter().any(|other| other == name),
        }
    }
}
