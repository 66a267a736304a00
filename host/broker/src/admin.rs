//! What admin operations share: the lock that puts them in a row, and how a change becomes durable.
//!
//! Owns the order *check, commit, install*: nothing is visible before it is durable. Plain blocking code; the handle
//! runs it on the runtime's blocking threads, so that a caller that goes away leaves nothing half done.
//!
//! The operations are in `topics.rs`, `plugins.rs` and `transforms.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{Health, Offset, PartitionId, PluginHash, TopicName, TopicPartition, TransformSpec};
use storage::{
    Commit, CommitError, PartitionChange, StateTable,
    sync::{Mutex, MutexGuard},
};
use transform::{Plugin, PluginHost, Transform};

use crate::{
    CatalogError, DeployError, OpenBrokerError, Partition, PluginError,
    catalog::{Catalog, TopicRow, put_topic},
    core::{Core, Settings, Slot},
    deployment::Deployment,
    directory::{Directory, Topic},
    plugin_files::PluginFiles,
    sequencer::{LaneStart, ProducerRow, Window},
};

/// Compiled plugins that some transform runs.
pub(crate) type Loaded = BTreeMap<PluginHash, Plugin>;

/// See the module.
pub(crate) struct Admin {
    pub(crate) core: Arc<Core>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) host: PluginHost,
    pub(crate) files: PluginFiles,
    lock: Mutex<Loaded>,
}

/// A topic that is to be as `row` says.
pub(crate) struct Planned {
    pub(crate) name: TopicName,
    pub(crate) row: TopicRow,
    /// As it is now, if it is.
    pub(crate) before: Option<Arc<Topic>>,
}

impl Planned {
    /// Adds what makes it so to a commit.
    pub(crate) fn add_to(&self, commit: &mut Commit) {
        let retention = self.row.config.retention;
        let (old, new) = self.row.partitions.split_at(self.before.as_ref().map_or(0, |t| t.row.partitions.len()));
        let create = new.iter().map(|id| PartitionChange::Create { id: *id, retention });
        let set = old.iter().map(|id| PartitionChange::SetRetention { id: *id, retention });
        commit.partitions.extend(create);
        if self.before.as_ref().is_some_and(|before| before.row.config.retention != retention) {
            commit.partitions.extend(set);
        }
        commit.state.push(put_topic(&self.name, Some(&self.row)));
    }
}

impl Admin {
    pub(crate) fn new(core: Arc<Core>, directory: Arc<Directory>, host: PluginHost, files: PluginFiles) -> Admin {
        Admin { core, directory, host, files, lock: Mutex::new(Loaded::new()) }
    }

    /// Waits for the turn of an admin operation.
    pub(crate) fn turn(&self) -> MutexGuard<'_, Loaded> {
        self.lock.lock()
    }

    /// Makes these topics durable, together.
    pub(crate) fn commit_topics<'a>(&self, planned: impl IntoIterator<Item = &'a Planned>) -> Result<(), CatalogError> {
        let mut commit = Commit::default();
        planned.into_iter().for_each(|planned| planned.add_to(&mut commit));
        self.commit(commit)
    }

    /// Makes a change durable.
    pub(crate) fn commit(&self, commit: Commit) -> Result<(), CatalogError> {
        self.core.store.commit(commit)?;
        Ok(())
    }

    /// What is answered without a commit of its own must not rest on what one whose outcome is unknown may have undone: a
    /// deletion that failed may be durable all the same, until the store has begun anew behind it.
    pub(crate) fn check_settled(&self) -> Result<(), CatalogError> {
        match self.core.store.stats().health {
            Health::ReadOnly { why } => Err(CommitError::ReadOnly { why }.into()),
            Health::Healthy | Health::Slowed { .. } | Health::Full { .. } => Ok(()),
        }
    }

    /// Brings back everything the catalog names.
    pub(crate) fn restore(&self, catalog: Catalog) -> Result<(), OpenBrokerError> {
        let mut loaded = self.turn();
        for (name, row) in catalog.plugins {
            self.directory.set_plugin(name, row);
        }
        for (name, row) in catalog.topics {
            let deployment = self.restore_deployment(&mut loaded, &name, &row)?;
            self.restore_topic(&name, row, Arc::new(deployment))?;
        }
        self.forget_unnamed(&mut loaded);
        Ok(())
    }

    fn restore_deployment(
        &self,
        loaded: &mut Loaded,
        topic: &TopicName,
        row: &TopicRow,
    ) -> Result<Deployment, OpenBrokerError> {
        let restore = |spec: &TransformSpec| {
            self.make_transform(loaded, spec.clone()).map_err(|source| OpenBrokerError::Transform {
                topic: topic.clone(),
                transform: spec.name.clone(),
                source: Box::new(source),
            })
        };
        let transforms = row.transforms.iter().map(restore).collect::<Result<Vec<_>, _>>()?;
        Ok(Deployment::new(transforms))
    }

    /// A transform that took its configuration.
    pub(crate) fn make_transform(
        &self,
        loaded: &mut Loaded,
        spec: TransformSpec,
    ) -> Result<Arc<Transform>, DeployError> {
        let plugin = self
            .load(loaded, spec.plugin_hash)
            .map_err(|source| DeployError::Plugin { plugin: spec.plugin.clone(), source: Box::new(source) })?;
        let transform =
            Transform::new(&self.host, &plugin, spec).map_err(|error| DeployError::Refused(Box::new(error)))?;
        Ok(Arc::new(transform))
    }

    fn load(&self, loaded: &mut Loaded, hash: PluginHash) -> Result<Plugin, PluginError> {
        if let Some(plugin) = loaded.get(&hash) {
            return Ok(plugin.clone());
        }
        let of_file = |source| PluginError::File { action: "read", source };
        let wasm: Bytes = self.files.read(hash).map_err(of_file)?;
        let plugin = self.host.load(&wasm).map_err(PluginError::of_engine)?;
        loaded.insert(hash, plugin.clone());
        Ok(plugin)
    }

    /// Forgets compiled plugins that no transform runs, and deletes files that nothing names.
    pub(crate) fn forget_unnamed(&self, loaded: &mut Loaded) {
        let topics = self.directory.topics();
        let deployed: BTreeSet<PluginHash> =
            topics.iter().flat_map(|(_, topic)| topic.row.transforms.iter().map(|spec| spec.plugin_hash)).collect();
        loaded.retain(|hash, _| deployed.contains(hash));
        let uploaded = self.directory.plugins().into_iter().map(|(_, row)| row.hash);
        let named: BTreeSet<PluginHash> = deployed.iter().copied().chain(uploaded).collect();
        match self.files.sweep(&named) {
            Ok(removed) => removed.iter().for_each(|hash| self.host.forget(*hash)),
            // They take room and do no harm; the next sweep tries again.
            Err(error) => tracing::warn!(%error, "failed to delete modules that are not used any more"),
        }
    }

    /// Makes a planned topic visible, once its change is durable.
    pub(crate) fn install(&self, planned: Planned) {
        let Planned { name, row, before } = planned;
        let deployment = before.map_or_else(Arc::default, |before| before.deployment.clone());
        self.install_topic(&name, row, deployment);
    }

    /// The next `count` partition ids. Only the admin in turn creates partitions, so they stay free until its commit.
    pub(crate) fn free_partitions(&self, count: u32) -> Vec<PartitionId> {
        let next = self.core.store.partition_id_next().0;
        (next..next + count).map(PartitionId).collect()
    }

    /// Makes a durable topic, or its change, visible. Partitions it did not have before are new and empty.
    pub(crate) fn install_topic(&self, name: &TopicName, row: TopicRow, deployment: Arc<Deployment>) {
        let settings = Arc::new(Settings::new(&row.config, deployment.clone()));
        let piped = !deployment.is_empty();
        let mut partitions = Vec::with_capacity(row.partitions.len());
        for (number, id) in row.partitions.iter().enumerate() {
            let slot = self.core.slot(*id).unwrap_or_else(|| {
                let place = TopicPartition { topic: name.clone(), partition: number as u32 };
                let group = row.partitions[0];
                let start = LaneStart { group, next_offset: Offset::ZERO, producers: BTreeMap::new(), piped };
                self.add_partition(*id, place, start, settings.clone())
            });
            slot.set(settings.clone());
            partitions.push(Arc::new(Partition::new(slot, self.core.clone())));
        }
        self.core.sequence(|sequencer, _| row.partitions.iter().for_each(|id| sequencer.set_piped(*id, piped)));
        self.directory.set_topic(name.clone(), Topic { row, partitions, deployment });
    }

    /// Makes a topic visible whose partitions are in the store, but not here: after a start.
    pub(crate) fn restore_topic(
        &self,
        name: &TopicName,
        row: TopicRow,
        deployment: Arc<Deployment>,
    ) -> Result<(), OpenBrokerError> {
        let settings = Arc::new(Settings::new(&row.config, deployment.clone()));
        for (number, id) in row.partitions.iter().enumerate() {
            let place = TopicPartition { topic: name.clone(), partition: number as u32 };
            let missing = || OpenBrokerError::PartitionMissing { topic: name.clone(), partition: place.partition };
            let start = LaneStart {
                group: row.partitions[0],
                next_offset: self.core.store.partition(*id).ok_or_else(missing)?.high_watermark,
                producers: self.restore_producers(*id)?,
                piped: !deployment.is_empty(),
            };
            self.add_partition(*id, place, start, settings.clone());
        }
        self.install_topic(name, row, deployment);
        Ok(())
    }

    fn add_partition(
        &self,
        id: PartitionId,
        place: TopicPartition,
        start: LaneStart,
        settings: Arc<Settings>,
    ) -> Arc<Slot> {
        let slot = Arc::new(Slot::new(id, place, start.next_offset, settings));
        // The slot first: a lane may be handed to a worker at once.
        self.core.add_slot(slot.clone());
        self.core.sequence(|sequencer, _| sequencer.add_lane(id, start));
        slot
    }

    fn restore_producers(&self, id: PartitionId) -> Result<BTreeMap<protocol::ProducerId, Window>, OpenBrokerError> {
        let mut rows: BTreeMap<_, Vec<ProducerRow>> = BTreeMap::new();
        for (key, value) in self.core.store.state_scan(StateTable::Producers, &id.0.to_be_bytes())? {
            let (producer, row) = ProducerRow::read(&key, &value).map_err(|source| OpenBrokerError::Row {
                table: "producers",
                key: format!("{key:?}"),
                source,
            })?;
            rows.entry(producer).or_default().push(row);
        }
        Ok(rows.into_iter().map(|(producer, rows)| (producer, Window::restore(rows))).collect())
    }
}
