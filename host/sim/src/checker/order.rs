//! Records of one producer lie in the order in which they were sent, and a record behind everything that was
//! acknowledged or shown before it was sent.

use std::collections::HashMap;

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Fate, RecordId, Seen, What},
    known::{Known, Sent},
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    for partition in 0..known.history.partitions.len() as u32 {
        by_log(known, partition, found);
    }
    by_answers(known, found);
    by_time(known, found);
}

/// Within what is there.
fn by_log(known: &Known<'_>, partition: u32, found: &mut Findings<'_>) {
    let mut last = HashMap::<(u32, u32), u64>::new();
    let records = known.log(partition).map_or(&[][..], |log| &log.records);
    for seen in records {
        found.step();
        let Some(record) = seen.record else { continue };
        let is_first = known.sent(record).is_some_and(|sent| sent.stored == Some(seen.offset));
        if !is_first || known.sent(record).and_then(|sent| known.home(record, sent.fate)) != Some(partition) {
            continue;
        }
        let last = last.entry((record.producer, record.partition)).or_insert(record.number);
        if record.number < *last {
            let evidence = Evidence::at(partition, seen.offset).of(record);
            found.add(Kind::Reordered, evidence, || format!("number {last} of the same producer lies before it"));
        }
        *last = record.number.max(*last);
    }
}

/// Among what retention took since.
fn by_answers(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut last: Option<(RecordId, u64)> = None;
    for (record, sent) in known.all_sent() {
        found.step();
        let is_gone = |offset: &u64| known.log(record.partition).is_some_and(|log| *offset < log.start);
        let Some(offset) = sent.acked_at().filter(is_gone) else { continue };
        let of_same =
            |last: &(RecordId, u64)| (last.0.producer, last.0.partition) == (record.producer, record.partition);
        if let Some((before, _)) = last.filter(|last| of_same(last) && last.1 > offset) {
            let evidence = Evidence::at(record.partition, offset).of(record).event(sent.event);
            found.add(Kind::Reordered, evidence, || {
                format!("{before}, which was sent before it, was told a later offset")
            });
        }
        last = Some((record, offset));
    }
}

/// Against what others had been told before it was sent.
fn by_time(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut floors = vec![0; known.history.partitions.len()];
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        match &happened.what {
            What::Send { partition, first, fates } => {
                let Some(floor) = floors.get(*partition as usize).copied() else { continue };
                for index in 0..fates.len() as u64 {
                    found.step();
                    let record = RecordId { producer: happened.client, partition: *partition, number: first + index };
                    let Some(offset) = known
                        .sent(record)
                        .filter(|sent| sent.event == event)
                        .and_then(place)
                        .filter(|offset| *offset < floor)
                    else {
                        continue;
                    };
                    let evidence = Evidence::at(*partition, offset).of(record).event(event);
                    found.add(Kind::Reordered, evidence, || {
                        format!("when it was sent, the log reached {floor} already")
                    });
                }
            }
            What::Ack { partition, first, count, base_offset, .. } => {
                for index in 0..*count {
                    found.step();
                    let record = RecordId { producer: happened.client, partition: *partition, number: first + index };
                    let Some(sent) = known.sent(record) else { break };
                    let seen = Seen { offset: base_offset.saturating_add(index), record: Some(record) };
                    if sent.fate == Fate::Kept {
                        raise(known, &mut floors, *partition, &seen);
                    }
                }
            }
            What::Read { partition, records, .. } => {
                for seen in records {
                    found.step();
                    raise(known, &mut floors, *partition, seen);
                }
            }
            _ => {}
        }
    }
}

fn raise(known: &Known<'_>, floors: &mut [u64], partition: u32, seen: &Seen) {
    if let Some(floor) = floors.get_mut(partition as usize)
        && known.is_there(partition, seen)
    {
        *floor = (*floor).max(seen.offset.saturating_add(1));
    }
}

/// Where a record lies in its own partition, as far as that is known. Of one that is there twice nothing is said.
fn place(sent: &Sent) -> Option<u64> {
    (sent.fate == Fate::Kept && sent.stored_again.is_none()).then_some(sent.stored)?
}
