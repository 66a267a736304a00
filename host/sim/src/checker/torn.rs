//! A batch without an answer is there as a whole, in one piece, or not at all. Of one that was acknowledged the other
//! promises speak.

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Fate, RecordId, What},
    known::{Known, Log, Sent},
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        let What::Send { partition, first, fates } = &happened.what else { continue };
        let id = |index| RecordId { producer: happened.client, partition: *partition, number: first + index };
        let batch = (0..fates.len() as u64).filter_map(|index| Some((index, id(index), known.sent(id(index))?)));
        let batch: Vec<(u64, RecordId, &Sent)> = batch.collect();
        let is_judged_elsewhere = |sent: &Sent| {
            sent.event != event
                || sent.acked_at().is_some()
                || sent.is_refused()
                || sent.astray
                || sent.stored_again.is_some()
        };
        if batch.len() < 2 || batch.iter().any(|(_, _, sent)| is_judged_elsewhere(sent)) {
            continue;
        }
        if let Some((record, text)) = torn(known, *partition, &batch, found) {
            found.add(
                Kind::Torn,
                Evidence { partition: *partition, ..Evidence::default() }.of(record).event(event),
                || text,
            );
        }
    }
}

/// The first record that is not where the others say.
fn torn(
    known: &Known<'_>,
    partition: u32,
    batch: &[(u64, RecordId, &Sent)],
    found: &mut Findings<'_>,
) -> Option<(RecordId, String)> {
    let (log, letters) = (known.log(partition)?, known.history.dead_letters_of(partition).and_then(|p| known.log(p)));
    batch.iter().find(|(_, _, sent)| sent.stored.is_some())?;
    let kept = batch.iter().filter(|(_, _, sent)| sent.fate == Fate::Kept);
    let base = kept.clone().find_map(|(index, _, sent)| sent.stored?.checked_sub(*index));
    batch.iter().find_map(|(index, record, sent)| {
        found.step();
        let expected = base.map(|base| base + index);
        match (sent.fate, sent.stored) {
            (Fate::Kept, Some(offset)) if expected != Some(offset) => {
                Some((*record, format!("it lies at {offset}, its batch at {base:?}")))
            }
            (Fate::Kept, None) if !may_be_gone(log, expected) => Some((*record, format!("it is not at {expected:?}"))),
            (Fate::DeadLettered, None) if letters.is_some_and(|log| !may_be_gone(log, None)) => {
                Some((*record, "it is not among the dead letters".to_owned()))
            }
            _ => None,
        }
    })
}

/// Whether retention may have taken what was at an offset, or it is there and cannot be read.
fn may_be_gone(log: &Log, offset: Option<u64>) -> bool {
    match offset {
        Some(offset) => offset < log.start || log.at(offset).is_some_and(|seen| seen.record.is_none()),
        None => log.start > 0,
    }
}
