//! The broker's handle.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use protocol::{
    Epoch, PluginDescription, PluginName, ProducerId, TopicDescription, TopicName, TopicPartition,
    TransformDescription, TransformName,
    control::{AlterTopic, CreateTopic, DeployTransform, Status},
};
use storage::StoreOptions;

use crate::{CatalogError, DeployError, OpenBrokerError, Partition, PluginError, TopicError, UnknownTopicOrPartition};

/// What a broker is opened with.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The store's sizes.
    pub store: StoreOptions,
    /// Threads that run pipelines; 0: one more than there are cores, so that a guest that loops leaves room.
    pub plugin_workers: usize,
    /// How often expired records are looked for, in milliseconds.
    pub retention_interval_ms: u64,
}

/// A running broker. A clone is the same broker.
#[derive(Clone)]
pub struct Broker {}

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Broker {
    /// Opens the broker of a data directory, and makes a new one where there is none. Blocks for recovery.
    ///
    /// # Errors
    /// See [`OpenBrokerError`].
    pub fn open(_options: BrokerOptions) -> Result<Broker, OpenBrokerError> {
        todo!()
    }

    /// Creates a topic; one that exists alike is success.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn create_topic(&self, _create: CreateTopic) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// Deletes a topic and its records. What waits for its pipeline is refused.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete_topic(&self, _name: TopicName) -> Result<(), TopicError> {
        todo!()
    }

    /// Changes a topic's settings.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn alter_topic(&self, _alter: AlterTopic) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// Topics by name; all of them for an empty list.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn describe_topics(&self, _names: &[TopicName]) -> Result<Vec<TopicDescription>, TopicError> {
        todo!()
    }

    /// A partition, to produce to and fetch from. Keep it: looking it up takes a lock.
    ///
    /// # Errors
    /// When there is none.
    pub fn partition(&self, _place: &TopicPartition) -> Result<Arc<Partition>, UnknownTopicOrPartition> {
        todo!()
    }

    /// Checks, compiles and keeps a plugin. Under an existing name it replaces what new deployments use.
    ///
    /// # Errors
    /// See [`PluginError`].
    pub async fn upload_plugin(&self, _name: PluginName, _wasm: Bytes) -> Result<PluginDescription, PluginError> {
        todo!()
    }

    /// All plugins, by name.
    #[must_use]
    pub fn list_plugins(&self) -> Vec<PluginDescription> {
        todo!()
    }

    /// Deletes a plugin that no transform uses.
    ///
    /// # Errors
    /// See [`PluginError`].
    pub async fn delete_plugin(&self, _name: PluginName) -> Result<(), PluginError> {
        todo!()
    }

    /// Deploys a transform, or replaces the one of its name, without stopping the topic.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn deploy_transform(&self, _deploy: DeployTransform) -> Result<TransformDescription, DeployError> {
        todo!()
    }

    /// Removes a transform from a topic's pipeline.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn remove_transform(&self, _topic: TopicName, _name: TransformName) -> Result<(), DeployError> {
        todo!()
    }

    /// Transforms by topic and stage; of all topics for `None`.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub fn list_transforms(&self, _topic: Option<&TopicName>) -> Result<Vec<TransformDescription>, DeployError> {
        todo!()
    }

    /// A producer id nobody had before.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn init_producer(&self) -> Result<(ProducerId, Epoch), CatalogError> {
        todo!()
    }

    /// How the broker is; `connections` is 0, the door knows them.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Takes no more batches, finishes and answers those in flight, closes the store. Idempotent.
    pub async fn shutdown(&self) {
        todo!()
    }
}
