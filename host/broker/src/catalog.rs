//! The rows of the catalog: topics with their transforms, plugins, and how far producer ids were given out.
//!
//! Owns their keys and layouts in [`StateTable::Catalog`]. Knows nothing of what runs.
//!
//! ```text
//! topic/NAME      TopicRow          plugin/NAME     PluginRow          producer-ids    ProducerIdsRow
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use minicbor::{Decode, Encode};
use protocol::{
    PartitionId, PluginDescription, PluginHash, PluginName, ProducerId, TopicConfig, TopicName, TopicPartition,
    TransformSpec,
};
use storage::{StateChange, StateTable, Store};

use crate::{OpenBrokerError, RowError, versioned};

/// A topic as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct TopicRow {
    #[n(0)]
    pub(crate) config: TopicConfig,
    /// By number; never empty.
    #[n(1)]
    pub(crate) partitions: Vec<PartitionId>,
    /// The pipeline, in order.
    #[n(2)]
    pub(crate) transforms: Vec<TransformSpec>,
}

/// A plugin as it is kept; its module is a file named by the hash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct PluginRow {
    #[n(0)]
    pub(crate) hash: PluginHash,
    #[n(1)]
    pub(crate) wasm_bytes: u64,
    #[n(2)]
    pub(crate) describe: String,
    #[n(3)]
    pub(crate) uploaded_at_ms: u64,
}

/// Producer ids below `next` may have been given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ProducerIdsRow {
    #[n(0)]
    pub(crate) next: ProducerId,
}

/// Version of the three layouts.
const ROW_VERSION: u8 = 1;

const TOPIC: &str = "topic/";
const PLUGIN: &str = "plugin/";
const PRODUCER_IDS: &str = "producer-ids";

impl PluginRow {
    pub(crate) fn describe(&self, name: &PluginName) -> PluginDescription {
        PluginDescription {
            name: name.clone(),
            hash: self.hash,
            wasm_bytes: self.wasm_bytes,
            describe: self.describe.clone(),
            uploaded_at_ms: self.uploaded_at_ms,
        }
    }
}

/// Sets or removes a topic.
pub(crate) fn put_topic(name: &TopicName, row: Option<&TopicRow>) -> StateChange {
    change(format!("{TOPIC}{name}"), row)
}

/// Sets or removes a plugin.
pub(crate) fn put_plugin(name: &PluginName, row: Option<&PluginRow>) -> StateChange {
    change(format!("{PLUGIN}{name}"), row)
}

/// Moves the mark below which producer ids are used up.
pub(crate) fn put_producer_ids(row: ProducerIdsRow) -> StateChange {
    change(PRODUCER_IDS.to_owned(), Some(&row))
}

fn change<T: Encode<()>>(key: String, row: Option<&T>) -> StateChange {
    let value = row.map(|row| Bytes::from(versioned::encode(ROW_VERSION, row)));
    StateChange { table: StateTable::Catalog, key: key.into(), value }
}

/// The partitions that a row of the catalog is about: those of its topic. None for other rows, and for one that cannot be
/// read.
#[must_use]
pub fn partitions_of(key: &[u8], value: &[u8]) -> Vec<PartitionId> {
    topic_of(key, value).map_or_else(Vec::new, |(_, row)| row.partitions)
}

/// What the partitions of a store are called, by the rows of its catalog; those that cannot be read are left out.
#[must_use]
pub fn partition_names(catalog: &[(Bytes, Bytes)]) -> BTreeMap<PartitionId, TopicPartition> {
    let topics = catalog.iter().filter_map(|(key, value)| topic_of(key, value));
    let names = topics.flat_map(|(topic, row)| {
        let name = move |partition| TopicPartition { topic: topic.clone(), partition };
        row.partitions.into_iter().zip((0..).map(name))
    });
    names.collect()
}

fn topic_of(key: &[u8], value: &[u8]) -> Option<(TopicName, TopicRow)> {
    let name = TopicName::new(str::from_utf8(key).ok()?.strip_prefix(TOPIC)?).ok()?;
    Some((name, versioned::decode(ROW_VERSION, value).ok()?))
}

/// The whole catalog.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) topics: BTreeMap<TopicName, TopicRow>,
    pub(crate) plugins: BTreeMap<PluginName, PluginRow>,
    pub(crate) producer_ids: Option<ProducerIdsRow>,
}

impl Catalog {
    /// The modules that some plugin or transform is made of.
    pub(crate) fn named_plugins(&self) -> BTreeSet<PluginHash> {
        let deployed = self.topics.values().flat_map(|row| row.transforms.iter().map(|spec| spec.plugin_hash));
        deployed.chain(self.plugins.values().map(|row| row.hash)).collect()
    }

    /// Reads the catalog of a store.
    pub(crate) fn load(store: &Store) -> Result<Catalog, OpenBrokerError> {
        let mut catalog = Catalog::default();
        for (key, value) in store.state_scan(StateTable::Catalog, b"")? {
            let key = String::from_utf8_lossy(&key).into_owned();
            catalog.read_row(&key, &value).map_err(|source| OpenBrokerError::Row { table: "catalog", key, source })?;
        }
        Ok(catalog)
    }

    pub(crate) fn read_row(&mut self, key: &str, value: &[u8]) -> Result<(), RowError> {
        let unknown = || RowError::Invalid(minicbor::decode::Error::message("no row has such a key"));
        if let Some(name) = key.strip_prefix(TOPIC) {
            let name = TopicName::new(name).map_err(|_| unknown())?;
            self.topics.insert(name, versioned::decode(ROW_VERSION, value)?);
        } else if let Some(name) = key.strip_prefix(PLUGIN) {
            let name = PluginName::new(name).map_err(|_| unknown())?;
            self.plugins.insert(name, versioned::decode(ROW_VERSION, value)?);
        } else if key == PRODUCER_IDS {
            self.producer_ids = Some(versioned::decode(ROW_VERSION, value)?);
        } else {
            return Err(unknown());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written_and_newer_ones_refused() {
        let row = TopicRow { config: TopicConfig::default(), partitions: vec![PartitionId(3)], transforms: Vec::new() };
        let name = TopicName::new("orders").unwrap();
        let change = put_topic(&name, Some(&row));
        let key = String::from_utf8(change.key.to_vec()).unwrap();
        let mut value = change.value.unwrap().to_vec();
        let mut catalog = Catalog::default();
        catalog.read_row(&key, &value).unwrap();
        assert_eq!(catalog.topics[&name], row);
        assert_eq!(partitions_of(key.as_bytes(), &value), [PartitionId(3)]);
        let names = partition_names(&[(key.clone().into(), value.clone().into()), ("else".into(), "".into())]);
        assert_eq!(names[&PartitionId(3)], TopicPartition { topic: name, partition: 0 });
        value[0] = 9;
        assert!(matches!(catalog.read_row(&key, &value), Err(RowError::Newer { found: 9, known: 1 })));
        assert!(matches!(catalog.read_row("else/x", &value), Err(RowError::Invalid(_))));
    }
}
