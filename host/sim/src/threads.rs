//! Panics of the store's threads, which nobody else would hear of.
//!
//! Start at [`listen`].

use std::{
    cell::Cell,
    path::Path,
    sync::{Arc, Once},
};

use parking_lot::Mutex;
use storage::{FileSystem, InProcess, OpenError, ProbedFile, Prober, sync};

/// Whose they were, and what they said.
static PANICS: Mutex<Vec<(Simulation, String)>> = Mutex::new(Vec::new());

/// A simulation, by its scheduler; those of threads outside of any are together.
type Simulation = Option<usize>;

fn this_simulation() -> Simulation {
    sync::scheduler().map(|scheduler| Arc::as_ptr(&scheduler).cast::<()>() as usize)
}

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
                PANICS.lock().push((this_simulation(), format!("thread `{name}` panicked: {info}")));
            } else {
                before(info);
            }
        }));
    });
}

/// The first panic of this simulation since the last call.
pub fn take_panic() -> Option<String> {
    let this = this_simulation();
    let mut panics = PANICS.lock();
    let first = panics.iter().find(|(of, _)| *of == this).map(|(_, panic)| panic.clone());
    panics.retain(|(of, _)| *of != this);
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
