//! The commands of `weir-sim`, one file each.

pub(crate) mod check;
mod progress;
pub(crate) mod replay;
mod report;
pub(crate) mod run;
