//! What is shown was sent before, to this partition, and was not taken out by a transform.

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Seen, What},
    known::Known,
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        let (What::Read { partition, records, .. } | What::Final { partition, records, .. }) = &happened.what else {
            continue;
        };
        for seen in records {
            found.step();
            if let Some((kind, text)) = judge(known, *partition, seen, event) {
                let evidence = Evidence { record: seen.record, ..Evidence::at(*partition, seen.offset) }.event(event);
                found.add(kind, evidence, || text.to_owned());
            }
        }
    }
}

fn judge(known: &Known<'_>, partition: u32, seen: &Seen, event: usize) -> Option<(Kind, &'static str)> {
    let Some(record) = seen.record else { return Some((Kind::Foreign, "its bytes were never sent")) };
    let Some(sent) = known.sent(record) else { return Some((Kind::Foreign, "nobody sent it")) };
    if sent.event > event {
        return Some((Kind::Foreign, "it was shown before it was sent"));
    }
    if known.home(record, sent.fate) == Some(partition) {
        None
    } else if record.partition == partition {
        Some((Kind::Books, "it is stored, and a transform was to take it out"))
    } else {
        Some((Kind::WrongPartition, "it was not sent there"))
    }
}
