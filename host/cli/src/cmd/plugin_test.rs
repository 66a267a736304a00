//! `weir plugin test`: a module tried on a file, record by record, with no broker.

mod determinism;

use std::{fs::File, io::BufReader, path::PathBuf};

use client::Record;
use protocol::{Offset, TopicName, TransformName};
use serde::Serialize;
use serde_json::{Map, Value, json};
use transform::{TraceVerdict, TracedRecord};

use super::Context;
use crate::{
    builtin, clock,
    exit::{Exit, Failure},
    human,
    lines::Lines,
    trial::{Stage, Trial},
    value,
};

/// Bytes of lines in one batch, about: below what a batch may have.
const BATCH_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir plugin test builtin:access-log-json --file access.log
  weir plugin test builtin:json-filter --file events.jsonl \\
      --config '{\"pointer\":\"/status\",\"op\":\">=\",\"value\":400}'
  weir plugin test target/wasm32-unknown-unknown/release/mine.wasm --file lines.txt --json | jq .verdict
  weir plugin test mine.wasm --file lines.txt --check-determinism

No broker is needed. Verdicts: keep, replace, multiply, route, drop, fail. The last line with --json is the summary.")]
pub(crate) struct Args {
    /// The module: a .wasm file, or `builtin:NAME`
    #[arg(value_name = "FILE|builtin:NAME")]
    source: String,
    /// Its configuration
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    /// The records: a line each
    #[arg(long, value_name = "INPUT")]
    file: PathBuf,
    /// Records it is given in one call
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Run the file again and again, in other batches, on used and on fresh instances, and compare all answers: ends with
    /// exit code 10 at the first record that is not always answered alike
    #[arg(long)]
    check_determinism: bool,
}

/// What it did with all records, and what that took.
#[derive(Debug, Default, Serialize)]
struct Summary {
    records_in: u64,
    kept: u64,
    replaced: u64,
    multiplied: u64,
    routed: u64,
    dropped: u64,
    failed: u64,
    batches: u64,
    ns: u64,
    ns_per_record: u64,
    /// Time and records of the first batch: it starts the instance, so it does not count where there are more.
    #[serde(skip)]
    first: (u64, u64),
}

pub(crate) fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let mut trial = start(args)?;
    let mut lines = open(args)?;
    if args.check_determinism {
        return determinism::check(&mut trial, &mut lines, args.batch as usize, context);
    }
    let mut summary = Summary::default();
    loop {
        let batch = next_batch(&mut lines, args.batch as usize)?;
        if batch.is_empty() {
            break;
        }
        let trace = trial.trace(&batch, Offset(summary.records_in), clock::now_ms())?;
        let stage = trace.stages.first().ok_or_else(|| anyhow::anyhow!("the module did not run"))?;
        let base = summary.records_in;
        for record in &stage.records {
            summary.count(&record.verdict);
            print(base + u64::from(record.source) + 1, record, context)?;
        }
        summary.add_batch(batch.len() as u64, stage.ns);
    }
    summary.close();
    context.out.item(&summary, Summary::text)?;
    Ok(Exit::Done)
}

fn start(args: &Args) -> anyhow::Result<Trial> {
    let wasm = builtin::read_module(&args.source)?;
    let name: TransformName = "test".parse()?;
    let topic: TopicName = "test".parse()?;
    let stage = Stage { name, plugin: "test".parse()?, wasm: &wasm, config: args.config.clone() };
    Trial::new(None, topic, vec![stage])
}

fn open(args: &Args) -> anyhow::Result<Lines<BufReader<File>>> {
    let file = File::open(&args.file).map_err(|error| {
        let text = format!("cannot read `{}`", args.file.display());
        Failure::new(Exit::Refused, text, "give a file of lines: `--file INPUT`").because(error)
    })?;
    Ok(Lines::new(BufReader::new(file)))
}

fn next_batch(lines: &mut Lines<BufReader<File>>, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut line = Vec::new();
    while batch.len() < count && bytes < BATCH_BYTES && lines.read(&mut line)? {
        bytes += line.len();
        batch.push(std::mem::take(&mut line));
    }
    Ok(batch)
}

impl Summary {
    fn count(&mut self, verdict: &TraceVerdict) {
        *match verdict {
            TraceVerdict::Keep => &mut self.kept,
            TraceVerdict::Replace(_) => &mut self.replaced,
            TraceVerdict::Multiply(_) => &mut self.multiplied,
            TraceVerdict::Route { .. } => &mut self.routed,
            TraceVerdict::Drop => &mut self.dropped,
            TraceVerdict::Fail { .. } => &mut self.failed,
        } += 1;
    }

    fn add_batch(&mut self, records: u64, ns: u64) {
        if self.batches == 0 {
            self.first = (ns, records);
        }
        self.batches += 1;
        self.records_in += records;
        self.ns += ns;
    }

    fn close(&mut self) {
        let (ns, records) = if self.batches > 1 { self.first } else { (0, 0) };
        self.ns_per_record = (self.ns - ns).checked_div(self.records_in - records).unwrap_or(0);
    }

    fn text(&self) -> String {
        let parts = [
            (self.kept, "kept"),
            (self.replaced, "replaced"),
            (self.multiplied, "multiplied"),
            (self.routed, "routed"),
            (self.dropped, "dropped"),
            (self.failed, "failed"),
        ];
        let said = parts.iter().filter(|(count, _)| *count > 0);
        let said: Vec<String> = said.map(|(count, word)| format!("{} {word}", human::count(*count))).collect();
        format!(
            "\n{} in {}: {}\n{} in all, {} a record{}",
            human::counted(self.records_in, "record"),
            human::counted(self.batches, "batch"),
            said.join(", "),
            human::nanos(self.ns as f64),
            human::nanos(self.ns_per_record as f64),
            if self.batches > 1 { " after the first batch, which starts the instance" } else { "" },
        )
    }
}

fn print(line: u64, record: &TracedRecord, context: &mut Context) -> anyhow::Result<()> {
    if context.out.is_json() {
        return context.out.json_line(&to_json(line, record));
    }
    let details = details(&record.verdict);
    let text = format!("{line:>6}  {:<8}  {details}", word(&record.verdict));
    context.out.raw(format!("{}\n", text.trim_end()).as_bytes())
}

/// What a verdict says beside its word.
fn details(verdict: &TraceVerdict) -> String {
    match verdict {
        TraceVerdict::Keep | TraceVerdict::Drop => String::new(),
        TraceVerdict::Fail { code, text } => format!("{text} (code {code})"),
        TraceVerdict::Replace(to) => shown(to),
        TraceVerdict::Multiply(to) => to.iter().map(shown).collect::<Vec<_>>().join("\n                  "),
        TraceVerdict::Route { routed, own } => {
            let to: Vec<String> = routed.iter().map(|(topic, record)| format!("{topic}: {}", shown(record))).collect();
            format!("{}{}", to.join(", "), if own.is_empty() { "" } else { ", and the own topic" })
        }
    }
}

fn shown(record: &Record) -> String {
    record.value.as_deref().map_or_else(|| "no value".to_owned(), value::show)
}

fn to_json(line: u64, record: &TracedRecord) -> Value {
    let mut object = Map::new();
    object.insert("line".to_owned(), line.into());
    object.insert("verdict".to_owned(), word(&record.verdict).into());
    match &record.verdict {
        TraceVerdict::Keep | TraceVerdict::Drop => {}
        TraceVerdict::Fail { code, text } => {
            object.insert("code".to_owned(), (*code).into());
            object.insert("text".to_owned(), text.as_str().into());
        }
        TraceVerdict::Replace(to) => value::put(&mut object, "value", to.value.as_deref()),
        TraceVerdict::Multiply(to) => {
            object.insert("values".to_owned(), to.iter().map(shown).collect());
        }
        TraceVerdict::Route { routed, own } => {
            let to = |(topic, record): &(TopicName, Record)| json!({ "topic": topic.as_str(), "value": shown(record) });
            object.insert("routed".to_owned(), routed.iter().map(to).collect());
            object.insert("values".to_owned(), own.iter().map(shown).collect());
        }
    }
    Value::Object(object)
}

fn word(verdict: &TraceVerdict) -> &'static str {
    match verdict {
        TraceVerdict::Keep => "keep",
        TraceVerdict::Replace(_) => "replace",
        TraceVerdict::Multiply(_) => "multiply",
        TraceVerdict::Route { .. } => "route",
        TraceVerdict::Drop => "drop",
        TraceVerdict::Fail { .. } => "fail",
    }
}
