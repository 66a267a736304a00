//! A running broker with its listeners: what `weir serve` starts, and what a program embeds.
//!
//! Owns the order of start (socket, data directory, identity, listener) and of stop (GOAWAY, answers in flight, close,
//! store). Nothing is written to the data directory before its lock is held and its format is known.
//!
//! Start at [`Server::start`].

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use broker::{Broker, BrokerOptions, Compiler, InProcess, InProcessCompiler, OpenBrokerError, Prober, StoreOptions};
use protocol::{ErrorCode, frame::ALPN};
use quinn::{Endpoint, crypto::rustls::QuicServerConfig};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet, spawn_blocking},
    time::timeout,
};

use crate::{
    config::{ConfigError, ServerConfig},
    identity::{Identity, IdentityError},
    listener::quic::{endpoint, frames::code},
    producers::Producers,
    runtime_file::{RunningBroker, RuntimeFile},
    session::Shared,
    tls::{self, TlsError},
};

/// How long to wait for clients to take note of a close; those that are gone never do.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has a value that cannot work.
    #[error("configuration is not usable")]
    Config(#[from] ConfigError),
    /// Another program listens there.
    #[error("address `{address}` is in use by another program; stop it, or listen on another port")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The listener could not be opened.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory could not be opened.
    #[error("cannot open data directory `{}`", data_dir.display())]
    Open {
        /// The directory.
        data_dir: PathBuf,
        /// Why not.
        source: Box<OpenBrokerError>,
    },
    /// The identity could not be made or read.
    #[error("cannot set up the broker's identity")]
    Identity(#[from] IdentityError),
    /// The identity does not hold together.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// Who does the work that the wrong bytes can make too much of. By default this process does; a program that can run itself
/// again has better ones.
#[derive(Debug, Clone)]
pub struct Helpers {
    /// Looks at files that may be damaged.
    pub prober: Arc<dyn Prober>,
    /// Compiles what is uploaded.
    pub compiler: Arc<dyn Compiler>,
}

impl Default for Helpers {
    fn default() -> Helpers {
        Helpers { prober: Arc::new(InProcess), compiler: Arc::new(InProcessCompiler) }
    }
}

/// A running broker. Stop it with [`Server::shutdown`]; dropped without it, connections are cut and what was not answered
/// may be stored or not.
pub struct Server {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    quic_addr: SocketAddr,
    identity_path: PathBuf,
    drain: watch::Sender<bool>,
    /// The accept loop; aborted when dropped.
    accept: JoinSet<()>,
    runtime_file: Option<RuntimeFile>,
}

impl Server {
    /// Starts a broker on the caller's Tokio runtime; when it returns, clients are served.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs.
    pub async fn start(config: ServerConfig) -> Result<Server, StartError> {
        Server::start_with(config, Helpers::default()).await
    }

    /// [`Server::start`], with other places for what had better not be done in this process.
    ///
    /// # Errors
    /// As [`Server::start`]'s.
    pub async fn start_with(config: ServerConfig, helpers: Helpers) -> Result<Server, StartError> {
        config.check()?;
        // First the port: where a broker runs already, its data directory is not even looked at.
        let socket = bind(config.quic)?;
        let (broker, identity) = open(&config, helpers).await?;
        match Server::listen(config, socket, broker.clone(), &identity) {
            Ok(server) => Ok(server),
            Err(error) => {
                broker.shutdown().await;
                Err(error)
            }
        }
    }

    fn listen(
        config: ServerConfig,
        socket: UdpSocket,
        broker: Broker,
        identity: &Identity,
    ) -> Result<Server, StartError> {
        let address = config.quic;
        let listen_error = |source| StartError::Listen { address, source };
        let tls = tls::server_config(identity, ALPN)?;
        let tls = QuicServerConfig::try_from(tls).expect("the provider has the cipher suite of QUIC's first packets");
        let endpoint = endpoint::listen(socket, &config.transport, tls).map_err(listen_error)?;
        let quic_addr = endpoint.local_addr().map_err(listen_error)?;
        let identity_path = absolute(&identity.admin_path());
        let runtime_file = announce(&config, quic_addr, &identity_path);
        let (drain, draining) = watch::channel(false);
        let shared = Arc::new(Shared {
            broker,
            ingest: Arc::new(Semaphore::new(config.ingest.bytes_max)),
            producers: Arc::new(Producers::default()),
            connections: Arc::new(Semaphore::new(config.transport.connections_max)),
            drain: draining,
            config,
        });
        let mut accept = JoinSet::new();
        accept.spawn(endpoint::accept(endpoint.clone(), shared.clone()));
        tracing::info!(quic = %quic_addr, data_dir = %shared.config.data_dir.display(), "listening");
        Ok(Server { shared, endpoint, quic_addr, identity_path, drain, accept, runtime_file })
    }

    /// Where the QUIC listener is; with the port the system chose where 0 was configured.
    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        self.quic_addr
    }

    /// The admin's identity file.
    #[must_use]
    pub fn identity_path(&self) -> PathBuf {
        self.identity_path.clone()
    }

    /// The broker behind the listeners.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.shared.broker
    }

    /// Connections open now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.connection_count()
    }

    /// Stops: tells every client (GOAWAY), answers what is in flight, closes connections, store and files. What takes
    /// longer than `drain_ms_max` is cut off.
    pub async fn shutdown(mut self) {
        self.drain.send_replace(true);
        let wait = Duration::from_millis(self.shared.config.drain_ms_max);
        if timeout(wait, self.accept.join_next()).await.is_err() {
            tracing::warn!(connections = self.connection_count(), "`drain_ms_max` is over, connections are cut");
            self.accept.shutdown().await;
        }
        self.shared.broker.shutdown().await;
        self.endpoint.close(code(ErrorCode::ShuttingDown), b"the broker is going away");
        // Clients that do not answer any more find out by themselves.
        let _ = timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
        drop(self.runtime_file.take());
        tracing::info!("stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.endpoint.close(code(ErrorCode::ShuttingDown), b"the broker is going away");
    }
}

fn bind(address: SocketAddr) -> Result<UdpSocket, StartError> {
    UdpSocket::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
        _ => StartError::Listen { address, source },
    })
}

/// Opens the data directory: the store's lock first, then what else is in it.
async fn open(config: &ServerConfig, helpers: Helpers) -> Result<(Broker, Identity), StartError> {
    let Helpers { prober, compiler } = helpers;
    let data_dir = config.data_dir.clone();
    let options = BrokerOptions {
        data_dir: data_dir.clone(),
        store: StoreOptions {
            budget: config.storage.budget,
            reserve_bytes: config.storage.reserve,
            commit_interval: config.storage.commit_interval,
            segment_bytes_max: config.storage.segment_bytes_max,
            tail_bytes_max: config.storage.tail_bytes_max,
            cache_bytes: config.storage.cache_bytes,
            prober,
            ..StoreOptions::default()
        },
        plugin_workers: config.transforms.workers,
        retention_interval_ms: config.storage.retention_interval_ms,
        scrub_bytes_per_second: config.storage.scrub_rate,
        compiler,
        plugin_host: None,
    };
    let broker = spawn_blocking({
        let data_dir = data_dir.clone();
        move || Broker::open(options).map_err(|error| StartError::Open { data_dir, source: Box::new(error) })
    });
    let broker = finished(broker.await)?;
    let identity = finished(spawn_blocking(move || Identity::open_or_create(&data_dir)).await);
    match identity {
        Ok(identity) => Ok((broker, identity)),
        Err(error) => {
            broker.shutdown().await;
            Err(error.into())
        }
    }
}

/// What a blocking task made; its panic is ours.
fn finished<T>(joined: Result<T, JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Leaves word of this broker for other programs of its user; a broker serves without that, too.
fn announce(config: &ServerConfig, quic_addr: SocketAddr, identity: &Path) -> Option<RuntimeFile> {
    if !config.runtime.announce {
        return None;
    }
    let dir = config.runtime.effective_dir();
    let broker = RunningBroker {
        address: reachable(quic_addr),
        identity: identity.to_owned(),
        data_dir: absolute(&config.data_dir),
    };
    match RuntimeFile::write(&dir, &broker) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "left no runtime file: `weir` needs its flags to find this broker");
            None
        }
    }
}

/// How a program on this host dials the listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// The path from anywhere; as it is where the current directory cannot be told.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
