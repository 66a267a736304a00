//! What was acknowledged is there, unless retention took it.

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Fate, RecordId},
    known::{Known, Sent},
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    for (record, sent) in known.all_sent() {
        found.step();
        let Some(offset) = sent.acked_at() else { continue };
        if sent.stored.is_none() && !sent.astray && must_be_there(known, record, sent, offset) {
            let evidence = Evidence::at(record.partition, offset).of(record).event(sent.event);
            found.add(Kind::Lost, evidence, || format!("acknowledged, {:?}, and not in the final log", sent.fate));
        }
    }
}

fn must_be_there(known: &Known<'_>, record: RecordId, sent: &Sent, offset: u64) -> bool {
    let Some(log) = known.home(record, sent.fate).and_then(|home| known.log(home)) else { return false };
    match sent.fate {
        // What lies there and cannot be read is the record itself, damaged.
        Fate::Kept => offset >= log.start && log.at(offset).is_none_or(|seen| seen.record.is_some()),
        // Which offset it got among the dead letters is not told.
        _ => log.start == 0,
    }
}
