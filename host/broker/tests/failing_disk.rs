//! A disk that fails under the broker: nobody is told more than is true, and a retry after the restart decides.

mod common;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use broker::{Broker, BrokerOptions, ProduceError, StoreOptions, TopicError};
use common::{LONG, VERDICTS, batch, deploy, open, partition, produced, topic, topic_name, upload, values};
use protocol::{ErrorCode, Health, Offset, WireError, control::DeployTransform};
use storage::{DirLock, FileEntry, FileSystem, HostFileSystem, OpenMode, Space, StoreFile};
use tokio::time::timeout;

/// The host's file system, until `fails` is set: then nothing can be synced any more.
#[derive(Debug, Default)]
struct Failing {
    fails: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn StoreFile>,
    fails: Arc<AtomicBool>,
}

impl FileSystem for Failing {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        HostFileSystem.create_dir_all(dir)
    }
    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        HostFileSystem.lock_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        HostFileSystem.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StoreFile>> {
        let file = HostFileSystem.open(path, mode)?;
        Ok(Arc::new(FailingFile { file, fails: self.fails.clone() }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        HostFileSystem.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostFileSystem.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostFileSystem.link(from, to)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        HostFileSystem.space(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        HostFileSystem.sync_dir(dir)
    }
}

impl StoreFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the disk is on fire")),
            false => self.file.sync_data(),
        }
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.allocate(offset, bytes)
    }
    fn release(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.release(offset, bytes)
    }
}

fn open_failing(dir: &Path) -> (Broker, Arc<AtomicBool>) {
    let disk = Failing::default();
    let fails = disk.fails.clone();
    let store = StoreOptions { preallocate_bytes: 1 << 20, file_system: Arc::new(disk), ..StoreOptions::default() };
    let broker = Broker::open(BrokerOptions { store, plugin_workers: 2, ..BrokerOptions::new(dir) }).unwrap();
    (broker, fails)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_answered_reads_go_on_and_a_retry_after_the_restart_stores_once() {
    const BATCHES: u32 = 40;
    let dir = tempfile::tempdir().unwrap();
    let (broker, fails) = open_failing(dir.path());
    topic(&broker, "plain", 1).await;
    topic(&broker, "piped", 1).await;
    upload(&broker, "verdicts", VERDICTS).await;
    let targets = vec![topic_name("plain")];
    broker.deploy_transform(DeployTransform { targets, ..deploy("piped", "verdicts") }).await.unwrap();
    let topics = ["plain", "piped"];
    let send = |broker: &Broker, name: &str, sequence: u32| {
        let own = [format!("k {name} {sequence}"), format!("r {name} {sequence}")];
        partition(broker, name, 0).produce(produced(&own, 1, 0, sequence * 2))
    };
    for name in topics {
        send(&broker, name, 0).await.unwrap();
    }
    fails.store(true, Ordering::SeqCst);
    let tickets: Vec<_> = (1..BATCHES).flat_map(|sequence| topics.map(|name| send(&broker, name, sequence))).collect();
    for ticket in tickets {
        let error = timeout(LONG, ticket).await.expect("everybody is answered").unwrap_err();
        let is_fair = matches!(
            error,
            ProduceError::CommitUnknown { .. }
                | ProduceError::ReadOnly { .. }
                | ProduceError::OutOfOrderSequence { .. }
        );
        assert!(is_fair, "{error:?}");
    }
    let health = broker.status().health;
    assert!(matches!(&health, Health::ReadOnly { why } if why.contains("on fire")), "{health:?}");
    let late = partition(&broker, "plain", 0).produce(batch(&["late"])).await.unwrap_err();
    assert!(late.is_retriable(), "{late}");
    let late = WireError::from(late);
    assert!(late.code == ErrorCode::ReadOnly && late.retry_after_ms > 0, "{late:?}");
    assert_eq!(values(&partition(&broker, "piped", 0)).await, ["k piped 0"]);

    let undone = broker.delete_topic(topic_name("plain")).await;
    assert!(matches!(undone, Err(TopicError::Target { .. })));
    let undone = broker.delete_topic(topic_name("piped")).await.unwrap_err();
    assert_eq!(WireError::from(undone).code, ErrorCode::ReadOnly);
    let piped = partition(&broker, "piped", 0);
    assert_eq!(values(&piped).await, ["k piped 0"], "it is still there");
    let stored = send(&broker, "piped", 0).await.unwrap();
    assert_eq!(stored.base_offset, Offset(0), "what is stored is still answered");
    drop((broker, piped));

    let broker = open(dir.path());
    for name in topics {
        for sequence in 0..BATCHES {
            send(&broker, name, sequence).await.unwrap();
        }
    }
    let mut own: Vec<String> = (0..BATCHES).map(|sequence| format!("k piped {sequence}")).collect();
    assert_eq!(values(&partition(&broker, "piped", 0)).await, own);
    own = values(&partition(&broker, "plain", 0)).await;
    own.sort();
    let mut expected: Vec<String> =
        (0..BATCHES).flat_map(|n| [format!("k plain {n}"), format!("r plain {n}"), format!("r piped {n}")]).collect();
    expected.sort();
    assert_eq!(own, expected, "routed records are stored once as well");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_to_exist_whose_deletion_may_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, fails) = open_failing(dir.path());
    topic(&broker, "orders", 1).await;
    upload(&broker, "verdicts", VERDICTS).await;
    fails.store(true, Ordering::SeqCst);
    let unknown = WireError::from(broker.delete_topic(topic_name("orders")).await.unwrap_err());
    assert_eq!(unknown.code, ErrorCode::CommitUnknown);
    let again = WireError::from(broker.create_topic(common::create("orders", 1)).await.unwrap_err());
    assert_eq!(again.code, ErrorCode::ReadOnly);
    let wasm = wat::parse_str(VERDICTS).unwrap();
    let again = broker.upload_plugin(common::plugin_name("verdicts"), wasm.into()).await.unwrap_err();
    assert_eq!(WireError::from(again).code, ErrorCode::ReadOnly);
    // A new one leaves no file, whether it could not be written or not be committed.
    let files = || std::fs::read_dir(dir.path().join("plugins")).unwrap().count();
    let before = files();
    let wasm = wat::parse_str(common::KEEP).unwrap();
    broker.upload_plugin(common::plugin_name("keep"), wasm.into()).await.unwrap_err();
    assert_eq!(files(), before);
    fails.store(false, Ordering::SeqCst);
    let created = async { while broker.create_topic(common::create("orders", 1)).await.is_err() {} };
    timeout(LONG, created).await.expect("it is said again when the store has begun anew");
    broker.shutdown().await;
}
