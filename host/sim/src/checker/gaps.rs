//! A reader is shown everything that lies between two of its places, and nothing else. Of what retention took since,
//! nobody knows. A read without records right after a seek is judged together with the next one.

use std::collections::HashMap;

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Seen, What},
    known::{Known, Log},
};

/// Where a reader is.
#[derive(Default)]
struct Reader {
    /// Everything from here on is to be shown to it.
    place: Option<u64>,
    /// Index of the record that comes next in the final log, once that is known.
    next: Option<usize>,
}

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut readers = HashMap::<(u32, u32), Reader>::new();
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        match &happened.what {
            What::Seek { partition, to } => {
                readers.insert((happened.client, *partition), Reader { place: *to, next: None });
            }
            What::Read { partition, from, next_offset, records } => {
                let Some(log) = known.log(*partition) else { continue };
                let reader = readers.entry((happened.client, *partition)).or_default();
                reader.begin(*from);
                if !records.is_sorted_by(|before, after| before.offset < after.offset) {
                    // What it was shown in disorder cannot be told from what it was not shown.
                    *reader = Reader { place: Some(*next_offset), next: None };
                    continue;
                }
                for seen in records {
                    found.step();
                    is_there(known, *partition, log, seen, event, found);
                    if let Some(passed) = reader.show(log, seen) {
                        stepped_over(*partition, passed, event, found);
                    }
                }
                if let Some(passed) = reader.end(log, *next_offset) {
                    stepped_over(*partition, passed, event, found);
                }
            }
            _ => {}
        }
    }
}

impl Reader {
    fn begin(&mut self, from: u64) {
        // One that went back was told of elsewhere, and begins anew.
        if self.place.is_none_or(|place| place > from) {
            *self = Reader { place: Some(from), next: None };
        }
    }

    /// It is shown a record; returns one that it should have been shown before.
    fn show<'a>(&mut self, log: &'a Log, seen: &Seen) -> Option<&'a Seen> {
        let index = *log.by_offset.get(&seen.offset)?;
        let place = self.place.unwrap_or(0);
        let passed = match self.next {
            Some(next) => (next < index).then(|| &log.records[next]),
            None => index.checked_sub(1).map(|before| &log.records[before]).filter(|before| before.offset >= place),
        };
        self.next = Some(index + 1);
        self.place = Some(seen.offset + 1);
        passed
    }

    /// It is told that there is nothing more up to an offset; returns a record that is there.
    fn end<'a>(&mut self, log: &'a Log, next_offset: u64) -> Option<&'a Seen> {
        let passed = self.next.and_then(|next| log.records.get(next)).filter(|next| next.offset < next_offset);
        if passed.is_some() {
            *self = Reader { place: Some(next_offset), next: None };
        }
        passed
    }
}

fn stepped_over(partition: u32, passed: &Seen, event: usize, found: &mut Findings<'_>) {
    let evidence = Evidence { record: passed.record, ..Evidence::at(partition, passed.offset) }.event(event);
    found.add(Kind::GapOverRecord, evidence, || "a reader that came past was not shown it".to_owned());
}

/// What a reader was shown stays. Where its producer was told of it as well, it is lost, and that is told elsewhere.
fn is_there(known: &Known<'_>, partition: u32, log: &Log, seen: &Seen, event: usize, found: &mut Findings<'_>) {
    let Some(record) = seen.record else { return };
    let Some(sent) = known.sent(record) else { return };
    let is_home = known.home(record, sent.fate) == Some(partition);
    if is_home && sent.acked_at().is_none() && seen.offset >= log.start && log.at(seen.offset).is_none() {
        let evidence = Evidence::at(partition, seen.offset).of(record).event(event);
        found.add(Kind::Vanished, evidence, || "a reader was shown it, and it is not in the final log".to_owned());
    }
}
