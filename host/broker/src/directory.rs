//! What exists now: topics with their partitions and deployments, and plugins, by name.
//!
//! Owns the lock for looking things up; it is held for a look only. Changes come from the admin operations alone, one
//! at a time, after they are durable.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{PartitionId, PluginName, TopicName, TopicPartition, TransformSpec};

use storage::sync::RwLock;

use crate::{
    Partition, UnknownTopicOrPartition,
    catalog::{PluginRow, TopicRow},
    deployment::Deployment,
};

/// A topic as it is now; a change makes a new one.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) row: TopicRow,
    /// By number, as in the row.
    pub(crate) partitions: Vec<Arc<Partition>>,
    pub(crate) deployment: Arc<Deployment>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    topics: RwLock<BTreeMap<TopicName, Arc<Topic>>>,
    plugins: RwLock<BTreeMap<PluginName, PluginRow>>,
}

impl Directory {
    pub(crate) fn set_topic(&self, name: TopicName, topic: Topic) {
        self.topics.write().insert(name, Arc::new(topic));
    }

    pub(crate) fn remove_topic(&self, name: &TopicName) {
        self.topics.write().remove(name);
    }

    pub(crate) fn set_plugin(&self, name: PluginName, row: PluginRow) {
        self.plugins.write().insert(name, row);
    }

    pub(crate) fn remove_plugin(&self, name: &PluginName) {
        self.plugins.write().remove(name);
    }

    pub(crate) fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    /// All topics, by name.
    pub(crate) fn topics(&self) -> Vec<(TopicName, Arc<Topic>)> {
        self.topics.read().iter().map(|(name, topic)| (name.clone(), topic.clone())).collect()
    }

    pub(crate) fn plugin(&self, name: &PluginName) -> Option<PluginRow> {
        self.plugins.read().get(name).cloned()
    }

    /// All plugins, by name.
    pub(crate) fn plugins(&self) -> Vec<(PluginName, PluginRow)> {
        self.plugins.read().iter().map(|(name, row)| (name.clone(), row.clone())).collect()
    }

    pub(crate) fn partition_ids(&self, topic: &TopicName) -> Option<Vec<PartitionId>> {
        self.topics.read().get(topic).map(|topic| topic.row.partitions.clone())
    }

    /// Whether a topic keeps the newest record of each key, so that every record needs one.
    pub(crate) fn compacts(&self, topic: &TopicName) -> bool {
        self.topics.read().get(topic).is_some_and(|topic| topic.row.config.retention.compacts())
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.topics.read().values().map(|topic| topic.row.partitions.len() as u32).sum()
    }

    pub(crate) fn partition(&self, place: &TopicPartition) -> Result<Arc<Partition>, UnknownTopicOrPartition> {
        let topics = self.topics.read();
        let unknown = || UnknownTopicOrPartition::Topic(place.topic.clone());
        let partitions = &topics.get(&place.topic).ok_or_else(unknown)?.partitions;
        partitions.get(place.partition as usize).cloned().ok_or_else(|| UnknownTopicOrPartition::Partition {
            topic: place.topic.clone(),
            partition: place.partition,
            partitions: partitions.len() as u32,
        })
    }

    /// The first transform, over all topics, of which this is true.
    pub(crate) fn find_transform(
        &self,
        is: impl Fn(&TopicName, &TransformSpec) -> bool,
    ) -> Option<(TopicName, TransformSpec)> {
        let topics = self.topics.read();
        let mut all = topics.iter().flat_map(|(name, topic)| topic.row.transforms.iter().map(move |spec| (name, spec)));
        all.find(|(name, spec)| is(name, spec)).map(|(name, spec)| (name.clone(), spec.clone()))
    }
}
