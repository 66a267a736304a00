//! What was refused for good is nowhere.

use crate::checker::{Evidence, Findings, Kind, known::Known};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    for (record, sent) in known.all_sent() {
        found.step();
        if let (true, Some(offset)) = (sent.is_refused(), sent.stored) {
            let evidence = Evidence::at(record.partition, offset).of(record).event(sent.event);
            found.add(Kind::RefusedStored, evidence, || "its producer was told that it is not stored".to_owned());
        }
    }
}
