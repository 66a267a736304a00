//! Panics of the store's threads, which nobody else would hear of.
//!
//! Start at [`listen`].

use std::{cell::Cell, path::Path, sync::Once};

use parking_lot::Mutex;
use storage::{FileSystem, InProcess, OpenError, ProbedFile, Prober};

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    static PROBING: Cell<bool> = const { Cell::new(false) };
}

/// Notes panics from now on, instead of printing them.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("a thread").to_owned();
            if PROBING.get() {
                return;
            }
            if name.starts_with("weir-") {
                PANICS.lock().push(format!("thread `{name}` panicked: {info}"));
            } else {
                before(info);
            }
        }));
    });
}

/// The first panic since the last call.
pub fn take_panic() -> Option<String> {
    let mut panics = PANICS.lock();
    let first = panics.first().cloned();
    panics.clear();
    first
}

/// Looks at suspect files in this process, where redb may panic as it likes.
#[derive(Debug, Clone, Copy)]
pub struct QuietProber;

impl Prober for QuietProber {
    fn probe(&self, file_system: &dyn FileSystem, path: &Path, file: ProbedFile) -> Result<u64, OpenError> {
        PROBING.set(true);
        let result = InProcess.probe(file_system, path, file);
        PROBING.set(false);
        result
    }
}
