//! What happens to a broker while its clients work: a seeded list of faults, each once at least, and then as they come.
//!
//! Start at [`Storm::blow`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use client::{Client, CreateTopic, NOW, ProducerConfig, Record, TopicConfig};
use protocol::Health;
use rustix::process::Signal;
use sim::rng::Rng;
use tokio::runtime::Runtime;

use crate::{
    clock,
    common::arg,
    disk::Disk,
    process::{Launcher, Process},
    world::World,
};

/// What the broker's configuration says of silent connections.
pub(crate) const IDLE: Duration = Duration::from_secs(3);

/// How long a broker may take until it says that its disk is full, or is no more.
const FULL_DURATION_MAX: Duration = Duration::from_secs(60);

/// The topic that fills what is left.
const HOG: &str = "hog";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    KillWhileStarting,
    StopShortly,
    StopLong,
    Terminate,
    KillWhileEnding,
    FillDisk,
    KillWhileFull,
}

/// How often each happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Blows {
    pub(crate) kills: u64,
    pub(crate) kills_while_starting: u64,
    pub(crate) stops: u64,
    pub(crate) long_stops: u64,
    pub(crate) terminations: u64,
    pub(crate) full_disks: u64,
    pub(crate) verifications: u64,
}

impl Blows {
    pub(crate) fn add(&mut self, other: &Blows) {
        self.kills += other.kills;
        self.kills_while_starting += other.kills_while_starting;
        self.stops += other.stops;
        self.long_stops += other.long_stops;
        self.terminations += other.terminations;
        self.full_disks += other.full_disks;
        self.verifications += other.verifications;
    }
}

pub(crate) struct Storm<'a> {
    pub(crate) world: Arc<World>,
    pub(crate) runtime: &'a Runtime,
    pub(crate) launcher: Launcher<'a>,
    pub(crate) disk: &'a Disk,
    pub(crate) rng: Rng,
    pub(crate) blows: Blows,
}

impl Storm<'_> {
    /// Lets faults happen until a time, each once at least, and returns the broker that runs then.
    pub(crate) fn blow(&mut self, mut broker: Process, until: Instant) -> anyhow::Result<Process> {
        let mut first = vec![
            Fault::Kill,
            Fault::KillWhileStarting,
            Fault::StopShortly,
            Fault::StopLong,
            Fault::Terminate,
            Fault::FillDisk,
            Fault::KillWhileEnding,
            Fault::KillWhileFull,
        ];
        while clock::now() < until || !first.is_empty() {
            let pause = self.rng.within(50..=1_000);
            self.sleep(pause);
            if let Some(status) = broker.has_ended()? {
                anyhow::bail!("the broker ended by itself: {status}; see {}", self.launcher.log_path().display());
            }
            let fault = match first.len() {
                0 => self.any_fault(),
                left => first.swap_remove(self.rng.below(left)),
            };
            broker = self.strike(broker, fault).with_context(|| format!("{fault:?}"))?;
        }
        Ok(broker)
    }

    fn any_fault(&mut self) -> Fault {
        match self.rng.below(20) {
            0..=7 => Fault::Kill,
            8 | 9 => Fault::KillWhileStarting,
            10..=12 => Fault::StopShortly,
            13 => Fault::StopLong,
            14 | 15 => Fault::Terminate,
            16 => Fault::KillWhileEnding,
            17 | 18 => Fault::FillDisk,
            _ => Fault::KillWhileFull,
        }
    }

    fn strike(&mut self, broker: Process, fault: Fault) -> anyhow::Result<Process> {
        match fault {
            Fault::Kill => self.kill(broker),
            Fault::KillWhileStarting => {
                let mut broker = broker;
                for _ in 0..self.rng.within(1..=3) {
                    self.kill_only(broker)?;
                    broker = self.launcher.launch()?;
                    let ms = self.rng.within(0..=150);
                    self.sleep(ms);
                    self.blows.kills_while_starting += 1;
                }
                self.kill(broker)
            }
            Fault::StopShortly => self.stop(broker, 20..=1_200),
            Fault::StopLong => {
                self.blows.long_stops += 1;
                let least = IDLE.as_millis() as u64 + 300;
                self.stop(broker, least..=least + 1_500)
            }
            Fault::Terminate => self.terminate(broker),
            Fault::KillWhileEnding => {
                broker.signal(Signal::TERM)?;
                let ms = self.rng.within(0..=30);
                self.sleep(ms);
                self.kill(broker)
            }
            Fault::FillDisk => {
                self.fill()?;
                self.free()?;
                Ok(broker)
            }
            Fault::KillWhileFull => {
                self.fill()?;
                self.kill_only(broker)?;
                // A broker may not be able to start where there is not one free block. Then it says so.
                let broker = self.launcher.start();
                self.free_disk();
                let broker = broker.or_else(|_| self.launcher.start())?;
                self.free()?;
                Ok(broker)
            }
        }
    }

    fn sleep(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn kill_only(&mut self, broker: Process) -> anyhow::Result<()> {
        self.blows.kills += 1;
        broker.kill()
    }

    fn kill(&mut self, broker: Process) -> anyhow::Result<Process> {
        self.kill_only(broker)?;
        let ms = if self.rng.percent(50) { 0 } else { self.rng.within(0..=700) };
        self.sleep(ms);
        self.launcher.start()
    }

    fn stop(&mut self, broker: Process, ms: std::ops::RangeInclusive<u64>) -> anyhow::Result<Process> {
        self.blows.stops += 1;
        broker.signal(Signal::STOP)?;
        let ms = self.rng.within(ms);
        self.sleep(ms);
        if self.rng.percent(20) {
            return self.kill(broker);
        }
        broker.signal(Signal::CONT)?;
        Ok(broker)
    }

    /// A graceful end: it is one, and it leaves nothing that is not as it was written.
    pub(crate) fn terminate(&mut self, broker: Process) -> anyhow::Result<Process> {
        self.blows.terminations += 1;
        let status = broker.terminate()?;
        ensure!(status.success(), "asked to end, the broker ended with {status}");
        if self.rng.percent(50) {
            self.verify()?;
        }
        self.launcher.start()
    }

    /// Nothing is damaged, whatever happened.
    pub(crate) fn verify(&mut self) -> anyhow::Result<()> {
        self.blows.verifications += 1;
        let ran = self.launcher.place.run(&["verify", arg(&self.launcher.data_dir)]);
        ensure!(ran.exit == 0, "{ran:?}");
        Ok(())
    }

    /// Fills the disk and waits until the broker says so.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.blows.full_disks += 1;
        self.disk.fill();
        let Storm { world, runtime, .. } = self;
        let filled = async {
            let client = world.connect_patiently().await?;
            // Blocks that the broker took ahead are left to it; they are soon used up.
            fill_up(&client).await?;
            wait_for(&client, |health| !health.takes_appends()).await
        };
        runtime.block_on(filled).context("the disk is full, and the broker does not say so")
    }

    fn free_disk(&mut self) {
        self.disk.free();
    }

    /// Gives the space back, and waits until the broker goes on by itself.
    fn free(&mut self) -> anyhow::Result<()> {
        let ms = self.rng.within(0..=800);
        self.sleep(ms);
        self.disk.free();
        let Storm { world, runtime, .. } = self;
        let freed = async {
            let client = world.connect_patiently().await?;
            client.admin().delete_topic(&HOG.parse()?).await?;
            create_hog(&client).await?;
            wait_for(&client, Health::takes_appends).await?;
            let before = world.acked();
            let begun = clock::now();
            while world.acked() == before {
                ensure!(begun.elapsed() < FULL_DURATION_MAX, "nothing is acknowledged since there is space again");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        runtime.block_on(freed).context("there is space again, and the broker does not go on")
    }
}

async fn wait_for(client: &Client, holds: impl Fn(&Health) -> bool) -> anyhow::Result<()> {
    let begun = clock::now();
    loop {
        let status = client.admin().status().await?;
        if holds(&status.health) {
            return Ok(());
        }
        ensure!(begun.elapsed() < FULL_DURATION_MAX, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A full disk takes no new topic: it has to be there before.
pub(crate) async fn create_hog(client: &Client) -> anyhow::Result<()> {
    let create = CreateTopic { name: HOG.parse()?, partitions: 1, config: TopicConfig::default() };
    client.admin().create_topic(create).await?;
    Ok(())
}

/// Produces into a topic of its own until nothing fits any more.
async fn fill_up(client: &Client) -> anyhow::Result<()> {
    let topic = HOG.parse()?;
    let config = ProducerConfig { delivery_timeout: Duration::from_millis(500), ..ProducerConfig::default() };
    let producer = client.producer(config);
    while client.admin().status().await?.health.takes_appends() {
        for _ in 0..8 {
            let _unanswered = producer.send(&topic, Record::unkeyed(vec![7; 512 << 10], NOW)).await?;
        }
        // Refused or not: the broker's health says when it is enough.
        let _ = producer.flush().await;
    }
    Ok(())
}
