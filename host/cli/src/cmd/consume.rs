//! `weir consume`: a topic's records on stdout.

use client::{Assignment, Client, ConsumedRecord, Consumer, ConsumerConfig, Until};
use protocol::TopicName;
use serde_json::{Map, Value};

use super::Context;
use crate::{
    exit::{Exit, Failure},
    human,
    output::{Closed, reader_gone},
    place::{self, Place},
    value,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir consume clicks                                  # from the beginning, then wait for more
  weir consume clicks --from end                       # only what comes from now on
  weir consume clicks --from -10m --until-end          # the last ten minutes
  weir consume clicks --from 2026-03-01T12:00:00Z --count 10
  weir consume clicks.dlq --until-end --format json    # dead letters with their reasons in the headers
  weir consume clicks | head -3")]
pub(crate) struct Args {
    /// The topic
    topic: TopicName,
    /// Where to begin: beginning, end, an offset, a time (RFC 3339), or how long ago (-10m)
    #[arg(long, default_value = "beginning", value_name = "PLACE", value_parser = place::parse, allow_hyphen_values = true)]
    from: Place,
    /// Read this partition only [default: all]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop at what is the end now
    #[arg(long, conflicts_with = "follow")]
    until_end: bool,
    /// Wait for more at the end; this is the default
    #[arg(long)]
    follow: bool,
    /// How a record is printed: its value and a line end, or all of it as JSON
    #[arg(long, value_enum, default_value = "value")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Value,
    Json,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> anyhow::Result<Exit> {
    let client = context.common.connect().await?;
    if args.count != Some(0) {
        let mut consumer = consumer(&args, &client).await?;
        print(&args, &mut consumer, context).await?;
    }
    client.close().await;
    Ok(Exit::Done)
}

async fn consumer(args: &Args, client: &Client) -> anyhow::Result<Consumer> {
    let topic = client.admin().topic(&args.topic).await?;
    let count = topic.partitions.len() as u32;
    let partitions = match args.partition {
        None => 0..count,
        Some(partition) if partition < count => partition..partition + 1,
        Some(partition) => {
            let has = human::counted(count.into(), "partition");
            let text = format!("topic `{}` has no partition {partition}; it has {has}", args.topic);
            let advice = "partitions are numbered from 0: `weir topic describe NAME`";
            return Err(Failure::new(Exit::NotFound, text, advice).into());
        }
    };
    let from = args.from.spec();
    let assignments = partitions.map(|partition| Assignment { topic: args.topic.clone(), partition, from });
    let until = if args.until_end { Until::End } else { Until::Forever };
    Ok(client.consumer(ConsumerConfig { until, ..ConsumerConfig::new(assignments) }))
}

/// Prints until the end that was asked for. Where nothing more is at hand, what was printed goes out.
async fn print(args: &Args, consumer: &mut Consumer, context: &mut Context) -> anyhow::Result<()> {
    let as_json = context.out.is_json() || args.format == Format::Json;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let at_hand = tokio::select! {
            biased;
            record = consumer.next() => Some(record),
            () = std::future::ready(()) => None,
        };
        let record = match at_hand {
            Some(record) => record,
            None => {
                // Who reads our stdout sees what there is before we wait for more, and we see whether they still do.
                context.out.flush()?;
                tokio::select! {
                    record = consumer.next() => record,
                    () = reader_gone() => return Err(Closed.into()),
                }
            }
        };
        let Some(record) = record.transpose()? else { break };
        if as_json {
            context.out.json_line(&to_json(&record))?;
        } else {
            context.out.raw(record.value.as_deref().unwrap_or_default())?;
            context.out.raw(b"\n")?;
        }
        left -= 1;
    }
    context.out.flush()
}

fn to_json(record: &ConsumedRecord) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_owned(), record.partition.topic.as_str().into());
    object.insert("partition".to_owned(), record.partition.partition.into());
    object.insert("offset".to_owned(), record.offset.0.into());
    object.insert("timestamp_ms".to_owned(), record.timestamp.into());
    value::put(&mut object, "key", record.key.as_deref());
    value::put(&mut object, "value", record.value.as_deref());
    let header = |header: &client::Header| {
        let mut object = Map::new();
        object.insert("name".to_owned(), header.name_text().into());
        value::put(&mut object, "value", header.value.as_deref());
        Value::Object(object)
    };
    object.insert("headers".to_owned(), record.headers.iter().map(header).collect());
    Value::Object(object)
}
