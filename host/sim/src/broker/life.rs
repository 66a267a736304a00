//! Opening a broker on a simulated disk, and ending its life in every way there is.
//!
//! Start at [`open`] and [`ghost`].

use std::{
    error::Error,
    fmt::Write as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use ::broker::{Broker, BrokerOptions, PluginHost, StoreOptions};
use storage::Clock;
use transform::PluginHostOptions;

use super::{
    plan::Plan,
    world::{Life, now_ms},
};
use crate::{disk::SimDisk, schedule, threads::QuietProber};

/// Where the broker keeps everything.
const DIR: &str = "/disk/data";

/// The time of the simulation.
#[derive(Debug)]
struct ScheduledClock;

impl Clock for ScheduledClock {
    fn now_ms(&self) -> i64 {
        now_ms()
    }

    fn random_id(&self) -> [u8; 16] {
        *b"a simulated one!"
    }
}

/// One engine for all brokers of the process: what they share of it is compiled code, which is kept on the host's own
/// disk where that is possible, because compiling takes longer than most of what is simulated.
fn plugin_host() -> PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        let kept = PluginHostOptions::new(std::env::temp_dir().join("weir-sim-plugins"));
        let host = PluginHost::new(&kept).or_else(|_| PluginHost::new(&PluginHostOptions::without_cache()));
        host.expect("the host has room for a plugin engine")
    });
    host.clone()
}

/// Opens the broker on a disk.
///
/// # Errors
/// Why it does not open.
pub(super) fn open(plan: &Plan, disk: &SimDisk) -> Result<Broker, String> {
    let store = StoreOptions {
        file_system: Arc::new(disk.clone()),
        clock: Arc::new(ScheduledClock),
        prober: Arc::new(QuietProber),
        ..plan.store.clone()
    };
    let options = BrokerOptions {
        store,
        plugin_workers: plan.workers,
        retention_interval_ms: plan.retention_interval_ms,
        scrub_bytes_per_second: plan.scrub_bytes_per_second,
        plugin_host: Some(plugin_host()),
        ..BrokerOptions::new(Path::new(DIR))
    };
    Broker::open(options).map_err(|error| chain(&error))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

/// Lets a life that nobody hears any more come to its end, on a disk that nobody looks at any more.
pub(super) fn ghost(life: Life, disk: SimDisk) -> schedule::JoinHandle<()> {
    let end = move || {
        disk.set_faults(None);
        schedule::block_on(life.broker.shutdown());
    };
    schedule::spawn("weir-sim-ghost", end).expect("the host has room for a thread")
}
