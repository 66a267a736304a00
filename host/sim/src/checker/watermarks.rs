//! Where a partition begins and ends only grows, and who asks after an acknowledgement is told of an end behind it.

use std::collections::HashMap;

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Fate, RecordId, What},
    known::Known,
};

/// What everybody who asks now must be told at least.
#[derive(Debug, Clone, Copy, Default)]
struct Floor {
    acked: u64,
    shown: u64,
    log_start: u64,
}

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut floors = vec![Floor::default(); known.history.partitions.len()];
    let mut asked = HashMap::<(u32, u32), Floor>::new();
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        let Some(floor) = partition_of(&happened.what).and_then(|partition| floors.get_mut(partition as usize)) else {
            continue;
        };
        match &happened.what {
            What::Ack { partition, first, count, base_offset, next_offset, .. } => {
                let first = RecordId { producer: happened.client, partition: *partition, number: *first };
                if is_so(known, first, *count, event, found) {
                    floor.acked = floor.acked.max((*next_offset).min(base_offset.saturating_add(*count)));
                }
            }
            What::Read { partition, records, .. } => {
                if let Some(last) = records.last().filter(|last| known.is_there(*partition, last)) {
                    floor.shown = floor.shown.max(last.offset + 1);
                }
            }
            What::Ask { partition } => {
                asked.insert((happened.client, *partition), *floor);
            }
            What::Watermark { partition, offset } => {
                let then = asked.get(&(happened.client, *partition)).copied().unwrap_or_default();
                ends(*partition, *offset, then, event, found);
                floor.shown = floor.shown.max(*offset);
            }
            What::LogStart { partition, offset } => {
                let then = asked.get(&(happened.client, *partition)).copied().unwrap_or_default();
                begins(*partition, *offset, then, event, found);
                floor.log_start = floor.log_start.max(*offset);
            }
            _ => {}
        }
    }
    for (partition, floor) in floors.into_iter().enumerate() {
        let Some(log) = known.log(partition as u32) else { continue };
        ends(partition as u32, log.next_offset, floor, log.event, found);
        begins(partition as u32, log.start, floor, log.event, found);
    }
}

fn partition_of(what: &What) -> Option<u32> {
    match what {
        What::Ack { partition, .. }
        | What::Read { partition, .. }
        | What::Ask { partition }
        | What::Watermark { partition, .. }
        | What::LogStart { partition, .. } => Some(*partition),
        _ => None,
    }
}

fn ends(partition: u32, offset: u64, floor: Floor, event: usize, found: &mut Findings<'_>) {
    let evidence = Evidence::at(partition, offset).event(event);
    if offset < floor.acked {
        let acked = floor.acked;
        found.add(Kind::WatermarkBehindAck, evidence, || format!("everything up to {acked} was acknowledged before"));
    } else if offset < floor.shown {
        let shown = floor.shown;
        found.add(Kind::WatermarkFell, evidence, || format!("{shown} was shown before"));
    }
}

fn begins(partition: u32, offset: u64, floor: Floor, event: usize, found: &mut Findings<'_>) {
    if offset < floor.log_start {
        let before = floor.log_start;
        let evidence = Evidence::at(partition, offset).event(event);
        found.add(Kind::LogStartFell, evidence, || format!("it was {before} before"));
    }
}

/// Whether an acknowledgement is the first of its records, and none of them lies elsewhere: only then is it a measure.
fn is_so(known: &Known<'_>, first: RecordId, count: u64, event: usize, found: &mut Findings<'_>) -> bool {
    (0..count).all(|index| {
        found.step();
        let record = RecordId { number: first.number + index, ..first };
        let Some(sent) = known.sent(record) else { return false };
        let is_first = sent.answer.is_some_and(|answer| answer.event == event);
        let is_there = sent.fate != Fate::Kept
            || sent.stored.is_none()
            || sent.acked_at().is_some_and(|acked_at| sent.lies_at(acked_at));
        is_first && is_there
    })
}
