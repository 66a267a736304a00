//! Uploads through the broker's face: what is not accepted leaves nothing, and whoever waits holds nobody up.

mod common;

use std::{
    collections::BTreeSet,
    future::Future,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use broker::{Broker, BrokerOptions, Compiler, InProcessCompiler, StoreOptions};
use bytes::Bytes;
use common::{KEEP, LONG, VERDICTS, create, deploy, pipeline, plugin_name, topic, upload};
use protocol::{ErrorCode, WireError, limits::UPLOADS_WAITING_MAX};
use tokio::time::timeout;
use transform::{Cancel, CompileError, NativeCode};

/// Compiles when it is let, and counts.
#[derive(Debug, Default)]
struct Watched {
    is_held: AtomicBool,
    begun: AtomicUsize,
    running: AtomicUsize,
    compiled: AtomicUsize,
}

impl Compiler for Watched {
    fn compile(&self, wasm: &[u8], cancel: &Cancel) -> Result<NativeCode, CompileError> {
        self.begun.fetch_add(1, SeqCst);
        assert_eq!(self.running.fetch_add(1, SeqCst), 0, "two modules are compiled at once");
        while self.is_held.load(SeqCst) && !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.running.fetch_sub(1, SeqCst);
        if cancel.is_cancelled() {
            return Err(CompileError::Cancelled);
        }
        self.compiled.fetch_add(1, SeqCst);
        InProcessCompiler.compile(wasm, cancel)
    }
}

fn open(dir: &Path, compiler: Arc<dyn Compiler>) -> Broker {
    let store = StoreOptions { preallocate_bytes: 1 << 20, ..StoreOptions::default() };
    Broker::open(BrokerOptions { store, plugin_workers: 2, compiler, ..BrokerOptions::new(dir) }).unwrap()
}

fn wasm(wat: &str) -> Bytes {
    wat::parse_str(wat).unwrap().into()
}

/// Names of all files of plugins and compiled plugins, but for the key.
fn left(dir: &Path) -> BTreeSet<String> {
    let plugins = dir.join("plugins");
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name != "compiled" && name != "key").collect::<Vec<_>>()
    };
    [names(&plugins), names(&plugins.join("compiled"))].concat().into_iter().collect()
}

async fn until(is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, looking).await.expect("it comes to be so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_uploads_of_one_module_compile_once() {
    let dir = tempfile::tempdir().unwrap();
    let compiler = Arc::new(Watched::default());
    let broker = open(dir.path(), compiler.clone());
    let again = |name: &'static str| broker.upload_plugin(plugin_name(name), wasm(VERDICTS));
    let (a, b, c, d) = tokio::join!(again("a"), again("b"), again("a"), again("c"));
    let hashes: BTreeSet<String> = [a, b, c, d].into_iter().map(|plugin| plugin.unwrap().hash.to_string()).collect();
    assert_eq!((hashes.len(), compiler.compiled.load(SeqCst)), (1, 1));
    assert_eq!(left(dir.path()).len(), 2, "one module and its compiled form: {:?}", left(dir.path()));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_nobody_waits_for_is_cancelled_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let compiler = Arc::new(Watched { is_held: true.into(), ..Watched::default() });
    let broker = open(dir.path(), compiler.clone());
    let uploading = tokio::spawn({
        let broker = broker.clone();
        async move { broker.upload_plugin(plugin_name("gone"), wasm(VERDICTS)).await.map(drop) }
    });
    until(|| compiler.running.load(SeqCst) == 1).await;
    // Meanwhile the catalog can be changed.
    topic(&broker, "clicks", 1).await;
    uploading.abort();
    until(|| compiler.running.load(SeqCst) == 0).await;
    // The next one has its turn, so the one before is over.
    compiler.is_held.store(false, SeqCst);
    upload(&broker, "kept", KEEP).await;
    assert_eq!(left(dir.path()).len(), 2, "{:?}", left(dir.path()));
    assert_eq!(broker.list_plugins().len(), 1);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_uploads_wait_and_no_more_and_they_hold_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let compiler = Arc::new(Watched { is_held: true.into(), ..Watched::default() });
    let broker = open(dir.path(), compiler.clone());
    let names: Vec<String> = (0..=UPLOADS_WAITING_MAX).map(|number| format!("p{number}")).collect();
    let mut uploads: Vec<_> =
        names.iter().map(|name| Box::pin(broker.upload_plugin(plugin_name(name), wasm(VERDICTS)))).collect();
    for upload in &mut uploads {
        let is_done =
            std::future::poll_fn(|context| std::task::Poll::Ready(pin!(upload.as_mut()).poll(context).is_ready()));
        assert!(!is_done.await, "nothing was compiled yet");
    }
    let refused = WireError::from(broker.upload_plugin(plugin_name("late"), wasm(VERDICTS)).await.unwrap_err());
    assert!(refused.code == ErrorCode::Overloaded && refused.text.contains("`uploads_waiting_max` (8)"), "{refused:?}");
    broker.create_topic(create("clicks", 1)).await.unwrap();
    // One that is waited for no more makes room.
    drop(uploads.pop());
    uploads.push(Box::pin(broker.upload_plugin(plugin_name("late"), wasm(VERDICTS))));
    compiler.is_held.store(false, SeqCst);
    for upload in uploads {
        timeout(LONG, upload).await.expect("each has its turn").unwrap();
    }
    assert_eq!(compiler.compiled.load(SeqCst), 1);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_nothing_and_what_an_earlier_life_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), Arc::new(InProcessCompiler));
    let loops = VERDICTS.replacen("(module", "(module (func $loop (loop (br 0))) (start $loop)", 1);
    for refused in [wasm("(module)"), wasm(&loops)] {
        let refused = broker.upload_plugin(plugin_name("bad"), refused).await.unwrap_err();
        assert_eq!(WireError::from(refused).code, ErrorCode::InvalidPlugin);
        assert_eq!(left(dir.path()), BTreeSet::new());
    }
    upload(&broker, "verdicts", VERDICTS).await;
    topic(&broker, "clicks", 1).await;
    broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
    broker.shutdown().await;
    drop(broker);
    let kept = left(dir.path());

    let compiled = dir.path().join("plugins/compiled");
    let of_this_engine = kept.iter().find(|name| name.ends_with(".compiled")).unwrap();
    let (hash, engine) = of_this_engine.split_once('-').unwrap();
    let nobody = "0".repeat(64);
    for name in [format!("{hash}-0123456789abcdef.compiled"), format!("{nobody}-{engine}"), format!("{hash}.1-2.new")] {
        std::fs::write(compiled.join(name), b"left").unwrap();
    }
    for name in [format!("{nobody}.wasm"), format!("{nobody}.wasm.tmp")] {
        std::fs::write(dir.path().join("plugins").join(name), b"left").unwrap();
    }
    let compiler = Arc::new(Watched::default());
    let broker = open(dir.path(), compiler.clone());
    assert_eq!(left(dir.path()), kept);
    assert_eq!((pipeline(&broker, "clicks").len(), compiler.begun.load(SeqCst)), (1, 0), "it is not compiled again");
    broker.shutdown().await;
}
