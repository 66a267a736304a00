//! A reader goes forward: each record once, in the order of offsets, until it seeks. So does who reads the final log.

use std::collections::HashMap;

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Seen, What},
    known::Known,
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut readers = HashMap::<(u32, u32), u64>::new();
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        match &happened.what {
            What::Seek { partition, to } => {
                readers.insert((happened.client, *partition), to.unwrap_or(0));
            }
            What::Read { partition, from, next_offset, records } => {
                let place = readers.entry((happened.client, *partition)).or_insert(0);
                let evidence = Evidence::at(*partition, *from).event(event);
                if *from < *place {
                    let client = happened.client;
                    found.add(Kind::NonMonotonicRead, evidence, || format!("reader {client} was at {place} before"));
                }
                *place = *next_offset;
                grows(*partition, (*from, *next_offset), records, event, found);
            }
            What::Final { partition, from, next_offset, records } => {
                grows(*partition, (*from, *next_offset), records, event, found);
            }
            _ => {}
        }
    }
}

fn grows(partition: u32, (from, next_offset): (u64, u64), records: &[Seen], event: usize, found: &mut Findings<'_>) {
    let mut place = from;
    for seen in records {
        found.step();
        if seen.offset < place || seen.offset >= next_offset {
            let evidence = Evidence { record: seen.record, ..Evidence::at(partition, seen.offset) }.event(event);
            found.add(Kind::NonMonotonicRead, evidence, || format!("it is not between {place} and {next_offset}"));
        }
        place = place.max(seen.offset.saturating_add(1));
    }
}
