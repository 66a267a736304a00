//! `records`: what a record pays for going through a guest, 1,000 of them in a batch.

use std::hint::black_box;

use anyhow::{Result, ensure};
use memchr::memmem::Finder;
use protocol::RecordBatch;

use crate::{
    Bench,
    engine::{Deploy, Engine, batch},
    figure::Target::{self, AtMost},
    guests, native,
    timing::{Pairs, pairs},
};

#[path = "../guests/envelope/src/envelope.rs"]
mod envelope;
#[path = "../guests/serde-filter/src/request.rs"]
mod request;

/// Records in a batch.
pub(crate) const RECORDS: usize = 1_000;
const NEEDLE: &str = "Googlebot";

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    no_op(bench, 100, AtMost(1.5))?;
    no_op(bench, 1_024, Target::None)?;
    substring(bench, 100, AtMost(2.5))?;
    substring(bench, 1_024, AtMost(5.0))?;
    serde_filter(bench)?;
    map(bench, 100, AtMost(2.2))?;
    map(bench, 1_024, Target::None)
}

fn tell(bench: &mut Bench, name: &str, pairs: &Pairs, target: Target) {
    let each = |ns: f64| ns / RECORDS as f64;
    let detail = format!("{:.1} ns a record, native {:.1}", each(pairs.one()), each(pairs.other()));
    bench.report.figure(name, pairs.ratio(), "of native", target, &detail);
}

fn measure(
    bench: &Bench,
    engine: &mut Engine,
    batch: &RecordBatch,
    native: impl Fn(&RecordBatch) -> RecordBatch,
) -> Result<Pairs> {
    let own = engine.run(batch).own;
    let section = |batch: &RecordBatch| batch.records_section(usize::MAX).ok();
    let is_same = own.is_some_and(|own| section(&own) == section(&native(batch)));
    ensure!(is_same, "guest and native code do not make the same of a batch");
    let turns = bench.full_or_quick(201, 21);
    Ok(pairs(turns, || drop(engine.run(black_box(batch))), || drop(native(black_box(batch)))))
}

fn no_op(bench: &mut Bench, value_bytes: usize, target: Target) -> Result<()> {
    let mut engine = Engine::new(&guests::no_op(), Deploy::default())?;
    let batch = batch(native::texts(RECORDS, value_bytes, NEEDLE));
    let native = |batch: &RecordBatch| native::filter(batch, |value| black_box(!value.is_empty()));
    let pairs = measure(bench, &mut engine, &batch, native)?;
    tell(bench, &format!("no-op, {value_bytes} B"), &pairs, target);
    if value_bytes == 100 {
        bench.report.figure("no-op, 100 B, one record", pairs.one() / RECORDS as f64, "ns", AtMost(15.0), "");
    }
    Ok(())
}

fn substring(bench: &mut Bench, value_bytes: usize, target: Target) -> Result<()> {
    let config = format!("{{\"contains\":\"{NEEDLE}\"}}");
    let mut engine = Engine::new(guests::CONTAINS, Deploy { config: &config, ..Deploy::default() })?;
    let finder = Finder::new(NEEDLE);
    let batch = batch(native::texts(RECORDS, value_bytes, NEEDLE));
    let native = |batch: &RecordBatch| native::filter(batch, |value| finder.find(value).is_some());
    let pairs = measure(bench, &mut engine, &batch, native)?;
    tell(bench, &format!("substring, {value_bytes} B"), &pairs, target);
    Ok(())
}

fn serde_filter(bench: &mut Bench) -> Result<()> {
    let mut engine = Engine::new(guests::SERDE_FILTER, Deploy::default())?;
    let batch = batch(requests());
    let native = |batch: &RecordBatch| native::filter(batch, |value| request::went_wrong(value).expect("it is JSON"));
    let pairs = measure(bench, &mut engine, &batch, native)?;
    tell(bench, "serde filter, 100 B", &pairs, AtMost(2.1));
    Ok(())
}

fn map(bench: &mut Bench, value_bytes: usize, target: Target) -> Result<()> {
    let mut engine = Engine::new(guests::ENVELOPE, Deploy::default())?;
    let batch = batch(native::texts(RECORDS, value_bytes, NEEDLE));
    let writes = |value: &[u8], out: &mut Vec<u8>| {
        envelope::parts(value).into_iter().for_each(|part| out.extend_from_slice(part));
    };
    let native = |batch: &RecordBatch| native::map(batch, writes);
    let pairs = measure(bench, &mut engine, &batch, native)?;
    tell(bench, &format!("rewriting map, {value_bytes} B"), &pairs, target);
    Ok(())
}

/// Requests as JSON of about 100 bytes, one in ten of them answered with an error.
pub(crate) fn requests() -> impl Iterator<Item = Vec<u8>> {
    (0..RECORDS).map(|index| {
        let (id, bytes, ms) = (index * 7_919 % 100_000, index * 31 % 50_000 + 1, index % 400 + 100);
        let status = if index % 10 == 3 { 502 } else { 200 };
        let path = format!("/api/v2/orders/{id:05}");
        format!(r#"{{"method":"GET","path":"{path}","status":{status},"bytes":{bytes},"ms":{ms},"host":"a.example"}}"#)
            .into_bytes()
    })
}
