//! `batches`: what a batch pays before its records do, and what a deployment costs.

use std::{hint::black_box, time::Duration};

use anyhow::{Result, ensure};
use protocol::TransformLimits;
use transform::{PluginHost, PluginHostOptions};

use crate::{
    Bench,
    engine::{Deploy, Engine, batch},
    figure::{
        Target::{self, AtMost},
        median,
    },
    guests, native,
    records::requests,
    timing::{alone, pairs, thread_cpu},
};

const DEADLINE_MS: u32 = 20;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    fixed(bench)?;
    fresh_instance(bench, "no-op", &guests::no_op(), AtMost(10.0))?;
    fresh_instance(bench, "serde filter", guests::SERDE_FILTER, AtMost(10.0))?;
    load(bench, "no-op", &guests::no_op(), AtMost(0.2))?;
    load(bench, "serde filter", guests::SERDE_FILTER, AtMost(0.2))?;
    endless_loop(bench)?;
    one_trap(bench)
}

/// One small record: nearly all of it is paid once a batch.
fn fixed(bench: &mut Bench) -> Result<()> {
    let mut engine = Engine::new(&guests::no_op(), Deploy::default())?;
    let batch = batch([b"0123456789".to_vec()]);
    let pairs = pairs(
        bench.full_or_quick(201, 21),
        || drop(engine.run(black_box(&batch))),
        || drop(native::filter(black_box(&batch), |value| black_box(!value.is_empty()))),
    );
    let detail = format!("{:.3} us, native {:.3}", pairs.one() / 1e3, pairs.other() / 1e3);
    bench.report.figure("fixed cost over native", pairs.difference() / 1e3, "us", AtMost(0.3), &detail);
    Ok(())
}

/// A batch of one record on a fresh instance, the old one's end included, over the same batch on a used one.
fn fresh_instance(bench: &mut Bench, name: &str, wasm: &[u8], target: Target) -> Result<()> {
    let (mut fresh, mut used) = (Engine::new(wasm, Deploy::default())?, Engine::new(wasm, Deploy::default())?);
    let batch = batch(requests().take(1));
    let pairs = pairs(
        bench.full_or_quick(201, 21),
        || {
            fresh.forget_instance();
            drop(fresh.run(black_box(&batch)));
        },
        || drop(used.run(black_box(&batch))),
    );
    bench.report.figure(&format!("fresh instance, {name}"), pairs.difference() / 1e3, "us", target, "");
    Ok(())
}

/// Bytes to plugin, where this broker has compiled it before.
fn load(bench: &mut Bench, name: &str, wasm: &[u8], target: Target) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let host = PluginHost::new(&PluginHostOptions::new(dir.path()))?;
    host.load(wasm)?;
    let ns = alone(bench.full_or_quick(51, 11), || {
        host.load(black_box(wasm)).expect("it was loaded before");
    });
    let detail = format!("module of {} KiB", wasm.len() >> 10);
    bench.report.figure(&format!("load of a compiled plugin, {name}"), ns / 1e6, "ms", target, &detail);
    Ok(())
}

/// CPU time until an endless loop has ended and its record is a dead letter.
fn endless_loop(bench: &mut Bench) -> Result<()> {
    let limits = TransformLimits { deadline_ms: DEADLINE_MS, ..TransformLimits::default() };
    let mut engine = Engine::new(&guests::spin(None), Deploy { limits, ..Deploy::default() })?;
    let batch = batch([b"0123456789".to_vec()]);
    let mut over = Vec::new();
    for _ in 0..bench.full_or_quick(51, 5) {
        let began = thread_cpu();
        let output = engine.run(&batch);
        ensure!(output.dead_letters.len() == 1, "the record is to blame");
        over.push((thread_cpu() - began).saturating_sub(Duration::from_millis(DEADLINE_MS.into())).as_secs_f64() * 1e3);
    }
    // A machine that is busy lets the ticker wait now and then; that is the longest, and says little of the engine.
    let longest = over.iter().copied().fold(0.0, f64::max);
    let detail = format!("the median; the longest {longest:.2}");
    bench.report.figure("endless loop, over its deadline", median(over), "ms", AtMost(5.0), &detail);
    Ok(())
}

/// One record of 1,000 makes the guest panic; the others are to come out as if it were not there.
fn one_trap(bench: &mut Bench) -> Result<()> {
    let mut engine = Engine::new(guests::SERDE_FILTER, Deploy::default())?;
    let mut other = Engine::new(guests::SERDE_FILTER, Deploy::default())?;
    let sound = batch(requests());
    let trapping =
        batch(requests().enumerate().map(|(at, value)| if at == 500 { b"not JSON".to_vec() } else { value }));
    ensure!(engine.run(&trapping).dead_letters.len() == 1, "the record is to blame");
    let pairs = pairs(
        bench.full_or_quick(201, 21),
        || drop(engine.run(black_box(&trapping))),
        || drop(other.run(black_box(&sound))),
    );
    let detail = format!("{:.0} us, without {:.0}", pairs.one() / 1e3, pairs.other() / 1e3);
    bench.report.figure("batch with one trap, serde filter", pairs.ratio(), "of one without", AtMost(3.0), &detail);
    Ok(())
}
