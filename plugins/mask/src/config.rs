//! What is masked, and how.

use std::collections::BTreeMap;

use guest_sdk::json::Pointer;
use serde::Deserialize;

use crate::{Prefix, hmac::Key};

/// All are found in one pass over a record.
const POINTERS_MAX: usize = 64;

/// A shorter key can be guessed by trying.
const KEY_CHARS_MIN: usize = 16;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    redact: Vec<Pointer>,
    #[serde(default)]
    truncate: BTreeMap<String, usize>,
    #[serde(default)]
    hash: Vec<Pointer>,
    #[serde(default)]
    network: Vec<Pointer>,
    key: Option<String>,
    ipv4_prefix: Option<u32>,
    ipv6_prefix: Option<u32>,
}

/// The configuration, checked: one action per pointer.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
pub(crate) struct Mask {
    pointers: Vec<Pointer>,
    actions: Vec<Action>,
}

/// What becomes of a value.
pub(crate) enum Action {
    Redact,
    /// To so many characters.
    Truncate(usize),
    Hash(std::rc::Rc<Key>),
    Network(Prefix),
}

impl Mask {
    pub(crate) fn pointers(&self) -> &[Pointer] {
        &self.pointers
    }

    pub(crate) fn action(&self, pointer: usize) -> &Action {
        &self.actions[pointer]
    }

    fn add(&mut self, pointer: Pointer, action: Action) {
        self.pointers.push(pointer);
        self.actions.push(action);
    }

    /// Checks that there is something to do, and nothing to do twice.
    fn checked(self) -> Result<Mask, String> {
        if self.pointers.is_empty() {
            return Err("nothing is masked: give pointers to `redact`, `truncate`, `hash` or `network`".to_owned());
        }
        if self.pointers.len() > POINTERS_MAX {
            return Err(format!("{} pointers are given, {POINTERS_MAX} can be", self.pointers.len()));
        }
        for (at, pointer) in self.pointers.iter().enumerate() {
            let mut others = self.pointers.iter().enumerate().filter(|(other, _)| *other != at);
            if let Some((_, outer)) = others.find(|(_, other)| other.contains(pointer)) {
                return Err(format!("`{pointer}` is masked already by `{outer}`"));
            }
        }
        Ok(self)
    }
}

impl TryFrom<Config> for Mask {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let mut mask = Mask { pointers: Vec::new(), actions: Vec::new() };
        for pointer in config.redact {
            mask.add(pointer, Action::Redact);
        }
        for (pointer, count) in config.truncate {
            mask.add(pointer.parse().map_err(|error| format!("{error}"))?, Action::Truncate(count));
        }
        match (config.key, config.hash.is_empty()) {
            (None, true) => {}
            (None, false) => return Err("`hash` needs a `key`".to_owned()),
            (Some(_), true) => return Err("`key` is given, but nothing to `hash`".to_owned()),
            (Some(key), false) if key.chars().count() < KEY_CHARS_MIN => {
                return Err(format!("`key` is shorter than {KEY_CHARS_MIN} characters"));
            }
            (Some(key), false) => {
                let key = std::rc::Rc::new(Key::new(key.as_bytes()));
                config.hash.into_iter().for_each(|pointer| mask.add(pointer, Action::Hash(key.clone())));
            }
        }
        let prefix = Prefix {
            ipv4: at_most("ipv4_prefix", config.ipv4_prefix.unwrap_or(24), 32)?,
            ipv6: at_most("ipv6_prefix", config.ipv6_prefix.unwrap_or(48), 128)?,
        };
        config.network.into_iter().for_each(|pointer| mask.add(pointer, Action::Network(prefix)));
        mask.checked()
    }
}

fn at_most(name: &str, value: u32, max: u32) -> Result<u32, String> {
    if value <= max { Ok(value) } else { Err(format!("`{name}` is {value}, more than {max}")) }
}
