//! The broker's configuration: one TOML file, one struct per section, every key with a default, a unit and a reason.
//!
//! Owns the names of the keys. Never reads the environment or flags: the command line sets the fields of
//! [`ServerConfig`] after the file was read, under the same names. A key nobody knows is refused with the nearest one
//! that is known.
//!
//! Start at [`ServerConfig::load`].

mod text;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use broker::Budget;
use protocol::{
    limits::{
        BATCH_BYTES_MAX, CONNECTIONS_MAX, FRAME_BYTES_MAX, IN_FLIGHT_BYTES_PER_HANDLE, INGEST_BYTES_MAX,
        PLUGIN_COMPILE_CPU_SECONDS, PLUGIN_COMPILE_MEMORY_BYTES,
    },
    units,
};
use serde::{Deserialize, Serialize};

/// Port of the QUIC listener where none is given.
pub const QUIC_PORT: u16 = 7433;

/// Smallest disk budget that is given in bytes: blocks are taken in steps of 16 MiB.
const BUDGET_BYTES_MIN: u64 = 64 << 20;

/// Smallest reserve: what is committed while the disk is full goes on from it.
const RESERVE_BYTES_MIN: u64 = 1 << 20;

/// Least memory for compiling: what the compiler takes for the smallest plugins, with room to spare.
const COMPILE_MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Most CPU time for compiling, in seconds: an hour of the clock at most, for which further uploads would wait.
const COMPILE_CPU_SECONDS_MAX: u64 = 600;

/// Longest interval between commits: a fraction of the time for which clients wait for an answer.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Everything that can be set on a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// `data_dir`: where records, plugins and identities are kept. Default `./weir-data`: a broker that is started with
    /// nothing leaves everything in one place that is easy to find and to delete.
    pub data_dir: PathBuf,
    /// `quic`: address of the QUIC listener. Default `127.0.0.1:7433`: nobody outside of the host reaches a broker that
    /// nobody configured. Port 0 lets the system choose.
    pub quic: SocketAddr,
    /// `drain_ms_max`: how long a stop waits for answers in flight and for clients to read them, in milliseconds.
    /// Default 10,000: below the 30 s after which service managers kill.
    pub drain_ms_max: u64,
    /// Section `transport`.
    pub transport: TransportConfig,
    /// Section `ingest`.
    pub ingest: IngestConfig,
    /// Section `storage`.
    pub storage: StorageConfig,
    /// Section `transforms`.
    pub transforms: TransformsConfig,
    /// Section `runtime`.
    pub runtime: RuntimeConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            data_dir: PathBuf::from("./weir-data"),
            quic: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), QUIC_PORT),
            drain_ms_max: 10_000,
            transport: TransportConfig::default(),
            ingest: IngestConfig::default(),
            storage: StorageConfig::default(),
            transforms: TransformsConfig::default(),
            runtime: RuntimeConfig::default(),
        }
    }
}

/// What QUIC's buffers are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Windows of 1 MiB a stream, 8 MiB a connection, 2 MiB to send: fills a link of 500 Mbit/s and 100 ms.
    Throughput,
    /// Windows of 256 KiB, 2 MiB, 512 KiB: a request waits behind fewer bytes of a saturating push.
    Latency,
}

/// How QUIC connections behave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// `transport.profile`: `throughput` or `latency`. Default `throughput`.
    pub profile: Profile,
    /// `transport.mtu_bytes_max`: largest UDP payload that path discovery tries, in bytes: 1,452 for Ethernet, 8,952 for
    /// jumbo frames. Default 0: 8,952 where the listener is on a loopback address, else 1,452.
    pub mtu_bytes_max: u16,
    /// `transport.connections_max`: connections open at the same time. Default 10,000; an idle one costs about 40 KiB.
    pub connections_max: usize,
    /// `transport.idle_ms_max`: how long a silent connection is kept, in milliseconds. Default 30,000: three keep-alives
    /// of a client; where it is less, the broker sends them.
    pub idle_ms_max: u32,
    /// `transport.hello_ms_max`: how long a connection may take to its HELLO, in milliseconds. Default 10,000: a slow
    /// link's handshake fits, and a connection that says nothing costs little.
    pub hello_ms_max: u64,
    /// `transport.stall_ms_max`: how long a peer may leave a frame half sent or answers unread before its stream is
    /// closed, in milliseconds. Default 30,000: what it holds of the ingest budget is everybody's.
    pub stall_ms_max: u64,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            profile: Profile::Throughput,
            mtu_bytes_max: 0,
            connections_max: CONNECTIONS_MAX,
            idle_ms_max: 30_000,
            hello_ms_max: 10_000,
            stall_ms_max: 30_000,
        }
    }
}

/// What producers may have in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// `ingest.bytes_max`: produce bytes that all connections together may have unanswered; past it the broker stops
    /// reading. Default 64 MiB: bounds the memory that a burst takes.
    pub bytes_max: usize,
    /// `ingest.in_flight_bytes_per_handle`: produce bytes that one topic-partition of one producer may have unanswered.
    /// Default 512 KiB: keeps a link of 1 Gbit/s busy at 4 ms a commit.
    pub in_flight_bytes_per_handle: u32,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig { bytes_max: INGEST_BYTES_MAX, in_flight_bytes_per_handle: IN_FLIGHT_BYTES_PER_HANDLE as u32 }
    }
}

/// How records are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `storage.budget`: what the broker's files may take of the disk together: a size such as `10GiB` or a share of the
    /// file system such as `80%`. Default `80%`: the host's own logs and updates have room. Near it producers are slowed,
    /// at it refused until there is space again; everything else goes on.
    #[serde(with = "text::budget")]
    pub budget: Budget,
    /// `storage.reserve`: disk space kept back within the budget, as a size; at most 1/16 of the budget is. Default
    /// `32MiB`: a full disk still takes offset commits, deletes, a new segment and a checkpoint of the state.
    #[serde(with = "text::size")]
    pub reserve: u64,
    /// `storage.commit_interval`: how long commits gather before they are written together, as a duration such as `50ms`,
    /// at most `10s`. Default `0s`: a commit waits for nothing but the one before it. More spares flash that wears out,
    /// and lets each producer wait as much longer.
    #[serde(with = "text::duration")]
    pub commit_interval: Duration,
    /// `storage.segment_bytes_max`: size at which a segment file is closed and the next one begun, in bytes; at most
    /// 1/8 of the budget is. Default 256 MiB: repair after a crash and the unit of retention are bounded by one file.
    pub segment_bytes_max: u64,
    /// `storage.tail_bytes_max`: memory that keeps the newest batches of all partitions for readers, in bytes. Default
    /// 32 MiB.
    pub tail_bytes_max: usize,
    /// `storage.cache_bytes`: memory for reads of older data and of the state, in bytes. Default 16 MiB: the system's page
    /// cache does the rest.
    pub cache_bytes: usize,
    /// `storage.retention_interval_ms`: how often expired records are looked for, in milliseconds. Default 60,000: they go
    /// by whole segments, so nothing is gained by looking more often.
    pub retention_interval_ms: u64,
    /// `storage.scrub_rate`: how fast older data is read in the background to find damage, as a size per second; `0B`: not
    /// at all. Default `4MiB`: no disk notices it, and 64 GiB are read in less than five hours.
    #[serde(with = "text::size")]
    pub scrub_rate: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        let store = broker::StoreOptions::default();
        StorageConfig {
            budget: store.budget,
            reserve: store.reserve_bytes,
            commit_interval: store.commit_interval,
            segment_bytes_max: store.segment_bytes_max,
            tail_bytes_max: store.tail_bytes_max,
            cache_bytes: store.cache_bytes,
            retention_interval_ms: 60_000,
            scrub_rate: 4 << 20,
        }
    }
}

/// How transforms are run, and plugins compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformsConfig {
    /// `transforms.workers`: threads that run pipelines, at most. Default 0: 32 for each processor. They are made as they
    /// are needed, and plugins take turns on the processors; one that computes for long holds a thread, and no other.
    pub workers: usize,
    /// `transforms.compile_memory_bytes`: memory that the process which compiles an uploaded plugin may take, in bytes.
    /// Default 512 MiB: large modules take a quarter of it, and one that is made to take more is refused.
    pub compile_memory_bytes: u64,
    /// `transforms.compile_cpu_seconds`: CPU time that it may take, in seconds. Default 10: large modules take a few; a
    /// processor that is much slower needs more.
    pub compile_cpu_seconds: u64,
}

impl Default for TransformsConfig {
    fn default() -> Self {
        TransformsConfig {
            workers: 0,
            compile_memory_bytes: PLUGIN_COMPILE_MEMORY_BYTES,
            compile_cpu_seconds: PLUGIN_COMPILE_CPU_SECONDS,
        }
    }
}

/// What a running broker leaves for other programs of its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// `runtime.announce`: leave address and identity path in the user's runtime directory. Default `true`: `weir` on the
    /// same host then needs no flag.
    pub announce: bool,
    /// `runtime.dir`: that directory. Default empty: `$XDG_RUNTIME_DIR/weir`, else `weir-<uid>` among the temporary files.
    pub dir: PathBuf,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig { announce: true, dir: PathBuf::new() }
    }
}

impl RuntimeConfig {
    /// The directory in force.
    #[must_use]
    pub fn effective_dir(&self) -> PathBuf {
        if self.dir.as_os_str().is_empty() { crate::runtime_file::runtime_dir() } else { self.dir.clone() }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML, or a value of the wrong type.
    #[error("configuration is not valid: {0}")]
    Toml(#[from] toml::de::Error),
    /// A key that there is not.
    #[error("configuration key `{key}` is unknown; the nearest known one is `{nearest}`")]
    UnknownKey {
        /// As given, with its section.
        key: String,
        /// What was probably meant.
        nearest: String,
    },
    /// A value that cannot work.
    #[error("`{key}` = {value} is not possible: {rule}")]
    Value {
        /// Which key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it has to fulfil.
        rule: &'static str,
    },
}

impl ServerConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or as [`ServerConfig::from_toml`].
    pub fn load(path: &Path) -> Result<ServerConfig, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        ServerConfig::from_toml(&text)
    }

    /// Reads a configuration from TOML text; what it does not name is the default.
    ///
    /// # Errors
    /// When it is not TOML, has an unknown key, or a value cannot be used.
    pub fn from_toml(text: &str) -> Result<ServerConfig, ConfigError> {
        refuse_unknown_keys(&text.parse()?)?;
        let config: ServerConfig = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as TOML text, every key with its value in force.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("paths come from TOML or the command line and are text")
    }

    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// With the first such value, and the rule it breaks.
    pub fn check(&self) -> Result<(), ConfigError> {
        let storage = &self.storage;
        let rules: [(&'static str, String, bool, &'static str); 10] = [
            (
                "ingest.bytes_max",
                self.ingest.bytes_max.to_string(),
                (FRAME_BYTES_MAX..=u32::MAX as usize).contains(&self.ingest.bytes_max),
                "it must hold one frame (8 MiB), and be below 4 GiB",
            ),
            (
                "ingest.in_flight_bytes_per_handle",
                self.ingest.in_flight_bytes_per_handle.to_string(),
                self.ingest.in_flight_bytes_per_handle > 0,
                "it must be above 0",
            ),
            (
                "transport.mtu_bytes_max",
                self.transport.mtu_bytes_max.to_string(),
                self.transport.mtu_bytes_max == 0 || (1_200..=65_507).contains(&self.transport.mtu_bytes_max),
                "QUIC needs 1,200 and UDP carries 65,507",
            ),
            (
                "transport.connections_max",
                self.transport.connections_max.to_string(),
                self.transport.connections_max > 0,
                "it must be above 0",
            ),
            (
                "storage.segment_bytes_max",
                storage.segment_bytes_max.to_string(),
                storage.segment_bytes_max >= 4 * BATCH_BYTES_MAX as u64,
                "it must hold a few commits (16 MiB)",
            ),
            (
                "storage.budget",
                storage.budget.to_string(),
                !matches!(storage.budget, Budget::Bytes(bytes) if bytes < BUDGET_BYTES_MIN),
                "it must hold a few steps of allocation (64 MiB)",
            ),
            (
                "storage.reserve",
                units::exact_bytes(storage.reserve),
                storage.reserve >= RESERVE_BYTES_MIN,
                "it must hold a few commits and a checkpoint of the state (1 MiB)",
            ),
            (
                "storage.commit_interval",
                units::duration_ms(storage.commit_interval.as_millis() as u64),
                storage.commit_interval <= COMMIT_INTERVAL_MAX,
                "producers wait for it with each batch, 10 s at most",
            ),
            (
                "transforms.compile_memory_bytes",
                self.transforms.compile_memory_bytes.to_string(),
                self.transforms.compile_memory_bytes >= COMPILE_MEMORY_BYTES_MIN,
                "the compiler needs 64 MiB",
            ),
            (
                "transforms.compile_cpu_seconds",
                self.transforms.compile_cpu_seconds.to_string(),
                (1..=COMPILE_CPU_SECONDS_MAX).contains(&self.transforms.compile_cpu_seconds),
                "it must be above 0, and 600 at most: further uploads wait",
            ),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((key, value, _, rule)) => Err(ConfigError::Value { key, value, rule }),
            None => Ok(()),
        }
    }
}

/// Compares the keys with those of the default configuration, which has them all.
fn refuse_unknown_keys(given: &toml::Table) -> Result<(), ConfigError> {
    let known = toml::Table::try_from(ServerConfig::default()).expect("the default is plain values");
    let known_keys = dotted_keys(&known);
    let is_known = |key: &String| known_keys.contains(key) || known.get(key).is_some_and(toml::Value::is_table);
    match dotted_keys(given).into_iter().find(|key| !is_known(key)) {
        None => Ok(()),
        Some(key) => {
            let nearest = known_keys.iter().min_by_key(|known| nearness(&key, known)).cloned();
            Err(ConfigError::UnknownKey { key, nearest: nearest.unwrap_or_default() })
        }
    }
}

/// The keys of a table and of the sections in it, as `section.key`; an empty section by its name.
fn dotted_keys(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(section) if !section.is_empty() => {
                keys.extend(section.keys().map(|key| format!("{name}.{key}")));
            }
            _ => keys.push(name.clone()),
        }
    }
    keys
}

/// Smaller is nearer: by the whole key or, where only the section is missing or wrong, by its last part.
fn nearness(key: &str, known: &str) -> (usize, usize) {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = distance(key, known);
    (whole.min(distance(&last(key), &last(known))), whole)
}

/// How many characters must be changed, added or removed to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_the_default() {
        assert_eq!(ServerConfig::from_toml("").unwrap(), ServerConfig::default());
        ServerConfig::default().check().unwrap();
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let mut config = ServerConfig { quic: "[::1]:9000".parse().unwrap(), ..ServerConfig::default() };
        config.transport.profile = Profile::Latency;
        assert_eq!(ServerConfig::from_toml(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn sizes_shares_and_durations_are_text_with_a_unit() {
        let config =
            ServerConfig::from_toml("[storage]\nbudget = '500 MB'\nreserve = 16_777_216\ncommit_interval = '250ms'");
        let config = config.unwrap();
        let storage = &config.storage;
        assert_eq!((storage.budget, storage.reserve), (Budget::Bytes(500_000_000), 16 << 20));
        assert_eq!(storage.commit_interval, Duration::from_millis(250));
        let shown = config.to_toml();
        for line in ["budget = \"500MB\"", "reserve = \"16MiB\"", "commit_interval = \"250ms\""] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in {shown}");
        }
        assert_eq!(ServerConfig::from_toml(&shown).unwrap(), config);
        let plain = ServerConfig::from_toml("[storage]\nbudget = 1_073_741_824\ncommit_interval = 0").unwrap();
        assert_eq!(plain.storage, StorageConfig { budget: Budget::Bytes(1 << 30), ..StorageConfig::default() });
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        for (text, key, near) in [
            ("data_dri = 'x'", "data_dri", "data_dir"),
            ("[ingest]\nbytes = 1", "ingest.bytes", "ingest.bytes_max"),
            ("[transprot]\nprofile = 'latency'", "transprot.profile", "transport.profile"),
            ("profile = 'latency'", "profile", "transport.profile"),
            ("[store]\nbudget = '1GiB'", "store.budget", "storage.budget"),
        ] {
            match ServerConfig::from_toml(text) {
                Err(ConfigError::UnknownKey { key: found, nearest }) => {
                    assert_eq!((found.as_str(), nearest.as_str()), (key, near));
                }
                other => panic!("{text} gave {other:?}"),
            }
        }
    }

    #[test]
    fn a_value_that_cannot_work_is_named() {
        for text in [
            "[ingest]\nbytes_max = 100",
            "[transport]\nmtu_bytes_max = 600",
            "[transport]\nprofile = 'fast'",
            "quic = 'localhost'",
            "quic = 7433",
            "transport = 3",
            "[storage]\nbudget = '0%'",
            "[storage]\nbudget = '1MiB'",
            "[storage]\nbudget = true",
            "[storage]\nreserve = 0",
            "[storage]\ncommit_interval = 5",
            "[storage]\ncommit_interval = '1h'",
            "[transforms]\ncompile_memory_bytes = 1_048_576",
            "[transforms]\ncompile_cpu_seconds = 0",
            "[transforms]\ncompile_cpu_seconds = 3600",
        ] {
            let error = ServerConfig::from_toml(text).unwrap_err().to_string();
            let key = text.rsplit('\n').next().unwrap().split(' ').next().unwrap();
            assert!(error.contains(key), "{error}");
        }
    }
}
