//! The doors of weir for the network: listeners, TLS, sessions, configuration, start and stop.
//!
//! Owns the sockets, the identities, the ingest budget and the limits of one connection. Never looks at a record and
//! decides nothing about topics: every request is one call of the [`broker`].
//!
//! Invariants
//! - Nobody is served who did not show a certificate of the broker's own CA.
//! - A length from the wire is compared with its limit before anything is allocated for it.
//! - Whatever a client does not read or does not send, it holds a bounded part of the broker's memory for a bounded time.
//! - What was answered is durable; a stop answers what is in flight.
//!
//! Start at [`Server`]; the way of a produced record goes through `listener/quic.rs`.

mod backup;
mod config;
mod identity;
mod listener;
mod private_files;
mod producers;
mod requests;
mod runtime_file;
mod server;
mod session;
mod tls;

pub use backup::{RestoredServer, restore};
pub use broker::{Budget, RestoreError, RestorePoint, RestoreReport};
pub use config::{
    ConfigError, IngestConfig, Profile, QUIC_PORT, RuntimeConfig, ServerConfig, StorageConfig, TransformsConfig,
    TransportConfig,
};
pub use identity::{ADMIN_PRINCIPAL, IdentityError};
pub use runtime_file::{RunningBroker, running_brokers, runtime_dir};
pub use server::{Helpers, Server, StartError};
pub use tls::TlsError;
