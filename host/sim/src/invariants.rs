//! What a store promises, one file each: pure questions about what may be there and what is.
//!
//! Start at [`check`].

mod acked;
mod agree;
mod compacted;
mod coverage;
mod failed;
mod retried;
mod serves;
mod shown;
mod torn;
mod watermarks;

use std::fmt;

pub(crate) use serves::no_panics;
pub use serves::{closes, opens};

use crate::{history::Expected, model::Model, observed::Observed};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: &'static str,
    /// What was found.
    pub what: String,
}

impl Violation {
    /// A promise that was not kept, and how.
    #[must_use]
    pub fn new(promise: &'static str, what: impl Into<String>) -> Violation {
        Violation { promise, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` was broken: {}", self.promise, self.what)
    }
}

impl std::error::Error for Violation {}

/// Whether what is there may be there; what it is, as a model.
///
/// # Errors
/// The first promise that was not kept.
pub fn check(expected: &Expected, observed: &Observed) -> Result<Model, Violation> {
    coverage::check(observed)?;
    acked::check_last(expected, observed)?;
    failed::check(expected, observed)?;
    let mut model = torn::settle(expected, observed)?;
    watermarks::check(expected, &model, observed)?;
    acked::check(expected, &model, observed)?;
    shown::check(expected, &model, observed)?;
    torn::check(&model, observed)?;
    retried::check(observed)?;
    agree::check(expected, &model, observed)?;
    // How far retention had come is for the store to say, within bounds that were checked.
    for (id, log) in &mut model.partitions {
        log.log_start = observed.partitions[id].log_start;
    }
    if expected.state_lost {
        model.state.clone_from(&observed.state);
    }
    Ok(model)
}
