//! After whatever happened to it, a store opens, serves, and closes.

use std::path::Path;

use storage::{Store, StoreOptions};

use crate::{invariants::Violation, threads};

/// Opens a store on a disk without faults.
///
/// # Errors
/// When it does not open.
pub fn opens(dir: &Path, options: StoreOptions) -> Result<Store, Violation> {
    Store::open(dir, options).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
        Violation::new("serves", format!("it does not open: {error}{cause}"))
    })
}

/// Closes a store on a disk without faults.
///
/// # Errors
/// When it does not close well, or one of its threads panicked meanwhile.
pub fn closes(store: Store) -> Result<(), Violation> {
    store.close().map_err(|error| Violation::new("serves", format!("it does not close: {error}")))?;
    drop(store);
    no_panics()
}

pub(crate) fn no_panics() -> Result<(), Violation> {
    threads::take_panic().map_or(Ok(()), |panic| Err(Violation::new("serves", panic)))
}
