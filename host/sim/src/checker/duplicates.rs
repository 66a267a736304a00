//! However often a record travelled, it is there once.

use crate::checker::{Evidence, Findings, Kind, known::Known};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    for (record, sent) in known.all_sent() {
        found.step();
        let (Some(first), Some(again)) = (sent.stored, sent.stored_again) else { continue };
        let kind = if sent.acked_at().is_some() { Kind::Duplicated } else { Kind::UnknownStoredTwice };
        let partition = known.home(record, sent.fate).unwrap_or(record.partition);
        let evidence = Evidence::at(partition, again).of(record).event(sent.event);
        found.add(kind, evidence, || format!("it lies at {first} as well"));
    }
}
