//! The doors of the broker, one file each.

pub(crate) mod quic;
