//! An offset means one record, and a record one offset, to everybody and for ever.

use std::collections::HashMap;

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Fate, RecordId, Seen, What},
    known::Known,
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut claims = Claims { known, by_offset: HashMap::new() };
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        match &happened.what {
            What::Ack { partition, first, count, base_offset, next_offset, .. } => {
                if next_offset.checked_sub(*base_offset) != Some(*count) {
                    let evidence = Evidence::at(*partition, *base_offset).event(event);
                    found.add(Kind::InconsistentOffset, evidence, || {
                        format!("{count} records were told to cover {base_offset} to {next_offset}")
                    });
                }
                for index in 0..*count {
                    let record = RecordId { producer: happened.client, partition: *partition, number: first + index };
                    let is_first =
                        |event| known.sent(record).and_then(|sent| sent.answer).is_some_and(|a| a.event == event);
                    if !is_first(event) {
                        break;
                    }
                    claims.claim(*partition, base_offset.saturating_add(index), record, event, found);
                }
            }
            What::Read { partition, records, .. } | What::Final { partition, records, .. } => {
                for seen in records {
                    claims.show(*partition, seen, event, found);
                }
            }
            _ => {}
        }
    }
}

/// Who said first what lies at each offset.
struct Claims<'a> {
    known: &'a Known<'a>,
    by_offset: HashMap<(u32, u64), (RecordId, usize)>,
}

impl Claims<'_> {
    fn claim(&mut self, partition: u32, offset: u64, record: RecordId, event: usize, found: &mut Findings<'_>) {
        found.step();
        let (before, who) = *self.by_offset.entry((partition, offset)).or_insert((record, event));
        if before != record {
            let evidence = Evidence::at(partition, offset).of(record).event(event);
            found.add(Kind::InconsistentOffset, evidence, || format!("event {who} says that {before} lies there"));
        }
    }

    fn show(&mut self, partition: u32, seen: &Seen, event: usize, found: &mut Findings<'_>) {
        let Some(record) = seen.record else { return };
        let Some(sent) = self.known.sent(record) else { return };
        let is_own = record.partition == partition;
        if !is_own && self.known.home(record, sent.fate) != Some(partition) {
            return;
        }
        self.claim(partition, seen.offset, record, event, found);
        let acked_at = sent.acked_at().filter(|_| is_own && sent.fate == Fate::Kept);
        if let Some(acked_at) = acked_at.filter(|acked_at| *acked_at != seen.offset)
            && !(sent.lies_at(acked_at) && sent.lies_at(seen.offset))
        {
            let evidence = Evidence::at(partition, seen.offset).of(record).event(event);
            found.add(Kind::InconsistentOffset, evidence, || format!("its producer was told {acked_at}"));
        }
    }
}
