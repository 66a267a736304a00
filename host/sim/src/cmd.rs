//! The commands of `weir-sim`, one file each.

#[cfg(feature = "broker")]
pub(crate) mod broker;
pub(crate) mod check;
pub(crate) mod damage;
pub(crate) mod faults;
mod progress;
pub(crate) mod replay;
mod report;
pub(crate) mod run;
