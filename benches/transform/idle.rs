//! `idle`: what deployed transforms keep in memory when nothing comes.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use transform::{PluginHost, PluginHostOptions};

use crate::{
    Bench,
    engine::{Deploy, Engine, batch},
    figure::Target::AtMost,
    guests,
    process::{Role, resident_bytes},
    records::requests,
};

const TRANSFORMS: usize = 100;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let mut process = Role::DeployAndIdle.start()?;
    let mut said = String::new();
    if let Some(output) = process.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    process.wait()?;
    let kept: u64 = said.trim().parse().context("the process that deploys failed")?;
    let kept = kept as f64 / 1048576.0;
    bench.report.figure("100 transforms, each after a batch of 1,000", kept, "MiB", AtMost(40.0), "");
    Ok(())
}

/// The process that is measured, whose memory has seen nothing else: deploys, gives each transform a batch, and says
/// how much more it keeps than before.
pub(crate) fn deploy_and_idle() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let host = PluginHost::new(&PluginHostOptions::new(dir.path()))?;
    let plugin = host.load(guests::SERDE_FILTER)?;
    let batch = batch(requests());
    let before = resident_bytes()?;
    let mut engines = Vec::new();
    for _ in 0..TRANSFORMS {
        let mut engine = Engine::on(&host, &plugin, Deploy::default())?;
        drop(engine.run(&batch));
        engines.push(engine);
    }
    println!("{}", resident_bytes()?.saturating_sub(before));
    Ok(())
}
