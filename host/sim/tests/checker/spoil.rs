//! What several plantings do: look for a place that a fault fits into, and put it there.

use sim::checker::history::{Event, Fate, RecordId, Seen, What};

use crate::{
    edit::{Place, Plant, SENT_TO, is_letters},
    model::{LETTERS, Outcome, PLAIN, TRIMMED},
};

pub(crate) fn seen_in(p: &Plant, partition: u32) -> Vec<Seen> {
    let finals = p.history().events.iter().filter_map(|event| match &event.what {
        What::Final { partition: of, records, .. } if *of == partition => Some(records),
        _ => None,
    });
    finals.flatten().copied().collect()
}

pub(crate) fn last_seen(p: &Plant, partition: u32) -> Option<Seen> {
    seen_in(p, partition).last().copied()
}

pub(crate) fn place(partition: u32, seen: Seen) -> Option<Place> {
    Some(Place { record: seen.record?, offset: seen.offset, partition })
}

/// The last record of some partition, if its batch ended so.
pub(crate) fn last_of(p: &mut Plant, ended: impl Fn(Outcome) -> bool) -> Option<Place> {
    let lasts = SENT_TO.into_iter().filter_map(|partition| place(partition, last_seen(p, partition)?));
    let lasts: Vec<Place> = lasts.filter(|place| ended(p.batch_of(place.record).outcome)).collect();
    p.pick(lasts)
}

/// The first record of the trimmed partition, if it was acked.
pub(crate) fn at_start(p: &mut Plant) -> Option<Place> {
    let first = place(TRIMMED, *seen_in(p, TRIMMED).first()?)?;
    (p.start(TRIMMED) > 0 && p.batch_of(first.record).outcome == Outcome::Acked).then_some(first)
}

pub(crate) fn kept_at(p: &Plant, partition: u32, offset: u64) -> bool {
    seen_in(p, partition).iter().any(|seen| seen.offset == offset)
}

/// Lets a partition end earlier.
pub(crate) fn cut(p: &mut Plant, partition: u32, end: u64) {
    for event in p.finals(partition) {
        let What::Final { from, next_offset, records, .. } = p.what(event) else { continue };
        (*from, *next_offset) = ((*from).min(end), (*next_offset).min(end));
        records.retain(|seen| seen.offset < end);
    }
    // Who was shown or told of more than that is another matter.
    p.events().retain(|event| match &event.what {
        What::Read { partition: of, next_offset, .. } => *of != partition || *next_offset <= end,
        What::Watermark { partition: of, offset } => *of != partition || *offset <= end,
        _ => true,
    });
}

/// Takes the nth stored record out of a batch without an answer.
pub(crate) fn torn(p: &mut Plant, nth: fn(usize) -> usize) -> Option<()> {
    let batch = p.unknown(true, |p, batch| batch.sends == 1 && p.places(batch).len() > 1)?;
    let places = p.places(&batch);
    let place = places[nth(places.len())];
    p.lose(place.record, place.partition);
    p.hide(place.record, place.partition);
    Some(())
}

/// Two adjacent acked batches of one kept record each.
pub(crate) fn single_neighbours(
    p: &mut Plant,
    producers: fn(u32, u32) -> bool,
    trimmed: bool,
) -> Option<(Place, Place)> {
    let acked = p.run.batches.iter().filter(|batch| batch.outcome == Outcome::Acked && batch.fates == [Fate::Kept]);
    let mut places: Vec<Place> = acked.flat_map(|batch| p.places(batch)).collect();
    places.sort_by_key(|place| (place.partition, place.offset));
    let pairs = places.iter().enumerate().flat_map(|(at, first)| {
        let later = places[at + 1..].iter().take_while(|second| second.partition == first.partition);
        later.map(|second| (*first, *second)).collect::<Vec<_>>()
    });
    let fits = |(first, second): &(Place, Place)| {
        producers(first.record.producer, second.record.producer)
            && p.is_kept_record(first) != trimmed
            && p.is_kept_record(second) != trimmed
    };
    let pairs = pairs.filter(fits).collect();
    p.pick(pairs)
}

/// Swaps two batches of one record each for everybody, their producers included.
pub(crate) fn swap_acked(p: &mut Plant, first: Place, second: Place) -> Option<()> {
    p.swap(first, second);
    for (place, to) in [(first, second.offset), (second, first.offset)] {
        let answered = p.batch_of(place.record).answered?;
        let What::Ack { base_offset, next_offset, .. } = p.what(answered) else { return None };
        (*base_offset, *next_offset) = (to, to + 1);
    }
    // An ack or a read that comes earlier now is not a matter of order.
    let is_early = |event: &Event, place: Place| match &event.what {
        What::Read { records, .. } => records.iter().any(|seen| seen.record == Some(place.record)),
        _ => false,
    };
    let reads = |place: Place| p.history().events.iter().position(|event| is_early(event, place));
    let sent = |place: Place| p.batch_of(place.record).sent;
    (reads(first).is_none_or(|read| read > sent(first)) && reads(second).is_none_or(|read| read > sent(second)))
        .then_some(())?;
    // Nor is a watermark that was told before what lies beneath it now.
    let told = [first, second].map(|place| {
        let answered = p.batch_of(place.record).answered.unwrap_or(0);
        p.find(|what| matches!(what, What::Watermark { partition, .. } if *partition == place.partition))
            .into_iter()
            .all(|event| event < sent(first).min(sent(second)) || event > answered)
    });
    (told == [true, true]).then_some(())
}

pub(crate) fn shift_ack(p: &mut Plant, event: usize, by: i64) -> Option<()> {
    let What::Ack { base_offset, next_offset, .. } = p.what(event) else { return None };
    *base_offset = base_offset.checked_add_signed(by)?;
    *next_offset = next_offset.checked_add_signed(by)?;
    Some(())
}

/// Says an answer once more, changed.
pub(crate) fn again(p: &mut Plant, event: usize, change: impl FnOnce(&mut What)) -> Option<()> {
    let mut answer = p.history().events[event].clone();
    change(&mut answer.what);
    p.events().insert(event + 1, answer);
    Some(())
}

pub(crate) fn shown(p: &Plant, event: usize) -> Vec<Seen> {
    match &p.history().events[event].what {
        What::Read { records, .. } => records.clone(),
        _ => Vec::new(),
    }
}

/// Some record that some reader was shown, and that is still there.
pub(crate) fn any_shown(p: &mut Plant) -> Option<(usize, usize)> {
    let mut all = Vec::new();
    for event in p.reads() {
        let What::Read { partition, records, .. } = &p.history().events[event].what else { continue };
        let start = p.start(*partition);
        let kept = records.iter().enumerate().filter(|(_, seen)| seen.offset >= start);
        all.extend(kept.map(|(at, _)| (event, at)));
    }
    p.pick(all)
}

/// Two records of different producers that lie side by side in a read, both acked and in a partition of their own.
pub(crate) fn in_a_read(p: &mut Plant, trimmed: bool) -> Option<(usize, usize)> {
    let mut all = Vec::new();
    for event in p.reads() {
        let What::Read { partition, records, .. } = &p.history().events[event].what else { continue };
        let start = p.start(*partition);
        for (at, pair) in records.windows(2).enumerate() {
            let (Some(first), Some(second)) = (pair[0].record, pair[1].record) else { continue };
            let acked = |record| p.batch_of(record).outcome == Outcome::Acked;
            let is_gone = pair[1].offset < start;
            let is_there = pair[0].offset >= start;
            if !is_letters(*partition)
                && first.producer != second.producer
                && acked(first)
                && acked(second)
                && if trimmed { is_gone } else { is_there }
            {
                all.push((event, at));
            }
        }
    }
    p.pick(all)
}

pub(crate) fn swap_shown(p: &mut Plant, event: usize, at: usize) -> Option<()> {
    let What::Read { records, .. } = p.what(event) else { return None };
    let (first, second) = (records[at].record, records[at + 1].record);
    (records[at].record, records[at + 1].record) = (second, first);
    let latest_sent = [first, second].map(|record| record.map_or(0, |record| p.batch_of(record).sent));
    // Where the later one was sent after something was shown, the order is broken as well.
    (latest_sent.into_iter().max()? < event).then_some(())
}

/// A reader that is spoilt does nothing more.
pub(crate) fn forget_reader_after(p: &mut Plant, event: usize) {
    let client = p.history().events[event].client;
    let mut at = 0;
    p.events().retain(|other| {
        at += 1;
        at - 1 <= event || other.client != client
    });
}

pub(crate) fn drop_reads_of(p: &mut Plant, partition: u32) {
    p.events().retain(|event| !matches!(event.what, What::Read { partition: of, .. } if of == partition));
}

/// Two reads of one reader that follow one another without a seek, of what is still there, with records in each.
pub(crate) fn continued_read(p: &mut Plant) -> Option<(usize, usize)> {
    let mut all = Vec::new();
    let events = &p.history().events;
    for after in p.reads() {
        let client = events[after].client;
        let before = events[..after]
            .iter()
            .rposition(|event| event.client == client && matches!(event.what, What::Read { .. } | What::Seek { .. }));
        let Some(before) = before else { continue };
        let (What::Read { partition, from, records, .. }, What::Read { records: next, .. }) =
            (&events[before].what, &events[after].what)
        else {
            continue;
        };
        if !records.is_empty() && !next.is_empty() && *from >= p.start(*partition) {
            all.push((before, after));
        }
    }
    p.pick(all)
}

/// Does not show a reader the nth record of a read.
pub(crate) fn unshown(p: &mut Plant, nth: fn(usize) -> usize) -> Option<()> {
    let (_, after) = continued_read(p)?;
    let What::Read { records, .. } = p.what(after) else { return None };
    records.remove(nth(records.len()));
    Some(())
}

/// Shows a new reader, after an event, a record behind everything else.
pub(crate) fn show_at_end(p: &mut Plant, partition: u32, record: RecordId, after: usize) -> Option<()> {
    let at = p.finals(PLAIN)[0];
    let offset = p.end(partition);
    let read = What::Read {
        partition,
        from: offset,
        next_offset: offset + 1,
        records: vec![Seen { offset, record: Some(record) }],
    };
    p.events().insert(at, Event { at_us: 0, client: 500, what: read });
    (after < at).then_some(())
}

/// Some answer to who asked for an end, and what had been acked of the partition before.
pub(crate) fn watermark(p: &mut Plant) -> Option<(usize, u64)> {
    let mut all = Vec::new();
    let events = &p.history().events;
    for event in p.find(|what| matches!(what, What::Watermark { .. })) {
        let What::Watermark { partition, .. } = events[event].what else { continue };
        let client = events[event].client;
        let is_ask = |other: &Event| other.client == client && other.what == What::Ask { partition };
        let Some(asked) = events[..event].iter().rposition(is_ask) else { continue };
        let acked = events[..asked].iter().filter_map(|event| match event.what {
            What::Ack { partition: of, next_offset, .. } if of == partition => Some(next_offset),
            _ => None,
        });
        all.extend(acked.max().map(|floor| (event, floor)));
    }
    p.pick(all)
}

pub(crate) fn in_books(p: &mut Plant, change: fn(&mut protocol::Books)) -> Option<()> {
    // Sums that are compared would tell of the same.
    p.events().retain(|event| !matches!(event.what, What::Total { .. }));
    let batch = p.acked(|_, batch| {
        let kept = batch.fates.iter().filter(|fate| **fate == Fate::Kept).count();
        kept > 0 && kept != batch.fates.iter().filter(|fate| **fate == Fate::Dropped).count() + 1
    })?;
    let What::Ack { books, .. } = p.what(batch.answered?) else { return None };
    change(books);
    Some(())
}

/// Stores a record where it would have been, had no transform taken it out.
pub(crate) fn taken_out(p: &mut Plant, fate: Fate) -> Option<()> {
    let batch = p.acked(|_, batch| Plant::has(batch, fate))?;
    let record = p.with_fate(&batch, fate)?;
    let offset = batch.base? + (record.number - batch.first);
    let seen = Seen { offset, record: Some(record) };
    for event in p.finals(batch.partition) {
        if let What::Final { from, next_offset, records, .. } = p.what(event)
            && (*from..*next_offset).contains(&offset)
        {
            let at = records.partition_point(|other| other.offset < offset);
            records.insert(at, seen);
        }
    }
    drop_reads_of(p, batch.partition);
    Some(())
}

/// Whether no dead letter of the same producer was sent later.
pub(crate) fn no_later_letter(p: &Plant, record: RecordId) -> bool {
    seen_in(p, LETTERS).iter().filter_map(|seen| seen.record).all(|other| {
        (other.producer, other.partition) != (record.producer, record.partition) || other.number < record.number
    })
}
