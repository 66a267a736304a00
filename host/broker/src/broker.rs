//! The broker's handle: opens everything, knows the parts, takes requests, shuts down.
//!
//! Owns the threads and their end. Decides nothing: every operation is one call into the part that owns it.
//!
//! Start at [`Broker::open`].

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use protocol::{
    Epoch, PluginDescription, PluginName, ProducerId, TopicDescription, TopicName, TopicPartition,
    TransformDescription, TransformName,
    control::{AlterTopic, AlterTransform, BackupStatus, CreateTopic, DeployTransform, StartBackup, Status},
};
use storage::{
    Store, StoreOptions,
    sync::{self, JoinHandle, Mutex, Sender},
};
use transform::{Compiler, InProcess, PluginHost, PluginHostOptions};

use crate::{
    BackupError, Beside, CatalogError, DeployError, OpenBrokerError, Partition, PluginError, TopicError,
    UnknownTopicOrPartition,
    admin::Admin,
    backup::Backups,
    blocking::{self, Ended},
    catalog::Catalog,
    clock::Start,
    core::{Core, Crew},
    directory::Directory,
    housekeeping::{self, Pace},
    plugin_files::PluginFiles,
    producer_ids::ProducerIds,
    uploads::{CancelOnDrop, Uploads},
    workers,
};

/// What a broker is opened with.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The store's sizes.
    pub store: StoreOptions,
    /// Threads that run pipelines, at most; at least 2. They are made as they are needed, and guests take turns on the
    /// processors, so a thread more is no load. 0: 32 for each processor.
    pub plugin_workers: usize,
    /// How often expired records are looked for, in milliseconds. Default: a minute, which is short beside any useful
    /// retention and long beside the work.
    pub retention_interval_ms: u64,
    /// How fast sealed segments are read to find damage, in bytes per second; 0: not at all. Default: 4 MiB, which no disk
    /// notices, and which reads 64 GiB in less than five hours.
    pub scrub_bytes_per_second: u64,
    /// What compiles uploaded plugins. Default: this process, which bounds neither memory nor time.
    pub compiler: Arc<dyn Compiler>,
    /// What runs plugins, where several brokers of a process share it. Default: one of its own, which keeps compiled
    /// plugins in the data directory.
    pub plugin_host: Option<PluginHost>,
}

impl BrokerOptions {
    /// The defaults, in this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> BrokerOptions {
        BrokerOptions {
            data_dir: data_dir.into(),
            store: StoreOptions::default(),
            plugin_workers: 0,
            retention_interval_ms: 60_000,
            scrub_bytes_per_second: 4 << 20,
            compiler: Arc::new(InProcess),
            plugin_host: None,
        }
    }
}

/// A running broker. A clone is the same broker. When the last one is dropped, whoever still waits is told that the
/// broker shuts down, whatever became of its batch; [`Broker::shutdown`] is the way to end well.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    directory: Arc<Directory>,
    admin: Arc<Admin>,
    producer_ids: Arc<ProducerIds>,
    backups: Arc<Backups>,
    uploads: Uploads,
    started: Start,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Dropped to end housekeeping.
    housekeeping: Option<Sender<()>>,
}

impl Broker {
    /// Opens the broker of a data directory, and makes a new one where there is none. Blocks for recovery.
    ///
    /// # Errors
    /// See [`OpenBrokerError`].
    pub fn open(options: BrokerOptions) -> Result<Broker, OpenBrokerError> {
        let BrokerOptions {
            data_dir,
            store,
            plugin_workers,
            retention_interval_ms,
            scrub_bytes_per_second,
            compiler,
            plugin_host,
        } = options;
        let io = |action| move |source| OpenBrokerError::Io { action, source };
        let file_system = store.file_system.clone();
        // The store first: it holds the lock on the directory.
        let store = Store::open(&data_dir, store)?;
        let catalog = Catalog::load(&store)?;
        let plugins = data_dir.join("plugins");
        let files = PluginFiles::open(plugins.clone(), file_system).map_err(io("make the directory of plugins"))?;
        let host = match plugin_host {
            Some(host) => host,
            None => own_plugin_host(PluginHostOptions { compiler, ..PluginHostOptions::new(plugins) }, &catalog)?,
        };

        let workers = worker_count(plugin_workers);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let crew = Crew { workers_max: workers, runs_per_group_max: cores.min(workers - 1) };
        let (core, answers) = Core::start(store, crew).map_err(io("start a thread"))?;
        let directory = Arc::new(Directory::default());
        let admin = Arc::new(Admin::new(core.clone(), directory.clone(), host, files));
        let producer_ids = Arc::new(ProducerIds::new(catalog.producer_ids));
        let threads = Mutex::new(Threads { handles: vec![answers], housekeeping: None });
        let started = Start::now();
        // From here on, dropping it ends the threads.
        let backups = Arc::<Backups>::default();
        let inner =
            Inner { core, directory, admin, producer_ids, backups, uploads: Uploads::default(), started, threads };
        inner.admin.restore(catalog)?;
        let interval = Duration::from_millis(retention_interval_ms);
        inner.start(interval, Pace::new(scrub_bytes_per_second)).map_err(io("start a thread"))?;
        Ok(Broker { inner: Arc::new(inner) })
    }

    /// Creates a topic; one that exists alike is success.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn create_topic(&self, create: CreateTopic) -> Result<TopicDescription, TopicError> {
        self.administer(move |admin| admin.create_topic(create)).await
    }

    /// Deletes a topic and its records. What waits for its pipeline is refused.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete_topic(&self, name: TopicName) -> Result<(), TopicError> {
        self.administer(move |admin| admin.delete_topic(&name)).await
    }

    /// Changes a topic's settings.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn alter_topic(&self, alter: AlterTopic) -> Result<TopicDescription, TopicError> {
        self.administer(move |admin| admin.alter_topic(alter)).await
    }

    /// Topics by name; all of them for an empty list.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<TopicDescription>, TopicError> {
        self.inner.admin.describe_topics(names)
    }

    /// A partition, to produce to and fetch from. Keep it: looking it up takes a lock.
    ///
    /// # Errors
    /// When there is none.
    pub fn partition(&self, place: &TopicPartition) -> Result<Arc<Partition>, UnknownTopicOrPartition> {
        self.inner.directory.partition(place)
    }

    /// Checks, compiles and keeps a plugin. Under an existing name it replaces what new deployments use. When the caller
    /// stops waiting before it is compiled, it is not kept.
    ///
    /// # Errors
    /// See [`PluginError`].
    pub async fn upload_plugin(&self, name: PluginName, wasm: Bytes) -> Result<PluginDescription, PluginError> {
        let turn = self.inner.uploads.turn().await?;
        let waits = CancelOnDrop::default();
        let cancel = waits.0.clone();
        let upload = move |admin: &Admin| {
            let _turn = turn;
            admin.upload_plugin(name, &wasm, &cancel)
        };
        self.administer(upload).await
    }

    /// All plugins, by name.
    #[must_use]
    pub fn list_plugins(&self) -> Vec<PluginDescription> {
        self.inner.admin.list_plugins()
    }

    /// Deletes a plugin that no transform uses.
    ///
    /// # Errors
    /// See [`PluginError`].
    pub async fn delete_plugin(&self, name: PluginName) -> Result<(), PluginError> {
        self.administer(move |admin| admin.delete_plugin(name)).await
    }

    /// Deploys a transform, or replaces the one of its name, without stopping the topic.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn deploy_transform(&self, deploy: DeployTransform) -> Result<TransformDescription, DeployError> {
        self.administer(move |admin| admin.deploy_transform(deploy)).await
    }

    /// Changes limits and policies of a transform while it runs.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn alter_transform(&self, alter: AlterTransform) -> Result<TransformDescription, DeployError> {
        self.administer(move |admin| admin.alter_transform(&alter)).await
    }

    /// Closes a transform's breaker, and lets what it paused go on.
    ///
    /// # Errors
    /// When topic or transform do not exist.
    pub async fn resume_transform(
        &self,
        topic: TopicName,
        name: TransformName,
    ) -> Result<TransformDescription, DeployError> {
        self.administer(move |admin| admin.resume_transform(&topic, &name)).await
    }

    /// Removes a transform from a topic's pipeline.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn remove_transform(&self, topic: TopicName, name: TransformName) -> Result<(), DeployError> {
        self.administer(move |admin| admin.remove_transform(&topic, &name)).await
    }

    /// Transforms by topic and stage; of all topics for `None`.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub fn list_transforms(&self, topic: Option<&TopicName>) -> Result<Vec<TransformDescription>, DeployError> {
        self.inner.admin.list_transforms(topic)
    }

    /// A producer id nobody had before.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn init_producer(&self) -> Result<(ProducerId, Epoch), CatalogError> {
        let ids = self.inner.producer_ids.clone();
        let id = self.administer(move |admin| ids.take(&admin.core.store)).await?;
        Ok((id, Epoch(0)))
    }

    /// Begins a backup on a thread of its own: of the store, of the plugins that its catalog names, and of what `beside`
    /// puts there. See [`Store::backup`].
    ///
    /// # Errors
    /// When it cannot begin; how it ends is told by [`Broker::backup_status`].
    pub fn start_backup(&self, start: StartBackup, beside: Beside) -> Result<BackupStatus, BackupError> {
        let Inner { core, admin, backups, .. } = &*self.inner;
        backups.begin(&core.store, &admin.files, start, beside)
    }

    /// How far the last backup is; `None` when there was none since the broker was opened.
    #[must_use]
    pub fn backup_status(&self) -> Option<BackupStatus> {
        self.inner.backups.status()
    }

    /// How the broker is; `connections` is 0, the door knows them.
    #[must_use]
    pub fn status(&self) -> Status {
        let Inner { core, directory, started, .. } = &*self.inner;
        let stats = core.store.stats();
        Status {
            broker: concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned(),
            store_id: core.store.store_id().to_string(),
            uptime_ms: started.elapsed_ms(),
            disk_bytes: stats.disk_bytes,
            segments: stats.segments as u64,
            commit_sequence: stats.commit_sequence,
            topics: directory.topics().len() as u64,
            partitions: directory.partition_count().into(),
            connections: 0,
            health: stats.health,
            budget_bytes: stats.budget_bytes,
            available_bytes: stats.available_bytes,
            scrubbed_bytes: stats.scrubbed_bytes,
            damages: stats.damages as u64,
        }
    }

    /// Takes no more batches, finishes and answers those in flight, closes the store. Idempotent.
    pub async fn shutdown(&self) {
        self.inner.core.drain().await;
        let inner = self.inner.clone();
        // The runtime may be going down as well; then dropping the broker ends the threads.
        let _ = blocking::run(move || inner.close()).await;
    }

    /// Runs a blocking operation to its end, whether or not the caller waits for it.
    async fn administer<T: Send + 'static, E: From<CatalogError> + Send + 'static>(
        &self,
        operation: impl FnOnce(&Admin) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let admin = self.inner.admin.clone();
        let result = blocking::run(move || operation(&admin)).await;
        result.unwrap_or_else(|Ended| Err(CatalogError::ShuttingDown.into()))
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("store", &self.inner.core.store.store_id()).finish_non_exhaustive()
    }
}

impl Inner {
    fn start(&self, interval: Duration, scrub: Pace) -> std::io::Result<()> {
        let mut threads = self.threads.lock();
        let (directory, host) = (self.directory.clone(), self.admin.host.clone());
        self.core.hire(move |core| workers::run(core, &directory, &host));
        let (stop, stopped) = sync::channel();
        let (store, host) = (self.core.store.clone(), self.admin.host.clone());
        let keep = move || housekeeping::run(&store, &host, interval, scrub, &stopped);
        threads.handles.push(sync::spawn("weir-housekeeping", keep)?);
        threads.housekeeping = Some(stop);
        Ok(())
    }

    /// Ends the threads and closes the store.
    fn close(&self) {
        let mut threads = self.threads.lock();
        self.core.stop();
        threads.housekeeping = None;
        self.backups.stop();
        for thread in threads.handles.drain(..).chain(self.core.dismiss()) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        if let Err(error) = self.core.store.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to close the store");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// The engine of this broker alone. What an earlier life left among the compiled plugins is swept.
fn own_plugin_host(options: PluginHostOptions, catalog: &Catalog) -> Result<PluginHost, OpenBrokerError> {
    let host = PluginHost::new(&options).map_err(|error| OpenBrokerError::PluginHost(Box::new(error)))?;
    host.sweep(&catalog.named_plugins());
    Ok(host)
}

fn worker_count(asked: usize) -> usize {
    match asked {
        0 => 32 * thread::available_parallelism().map_or(1, usize::from),
        asked => asked.max(2),
    }
}
