//! The commands of `weir-sim`, one file each.

pub(crate) mod check;
pub(crate) mod replay;
pub(crate) mod run;
