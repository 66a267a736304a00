//! The list of plantings: how a history is spoilt, and what has to be said of it.
//!
//! Start at [`ALL`].

use sim::checker::{
    Kind::{self, *},
    history::{Event, Fate, RecordId, Seen, What},
};

use crate::{
    edit::{Plant, SENT_TO, is_letters},
    model::{Batch, FILTERED, LETTERS, Outcome, PLAIN, TRIMMED, books},
    spoil::{
        again, any_shown, at_start, continued_read, cut, drop_reads_of, forget_reader_after, in_a_read, in_books,
        kept_at, last_of, last_seen, no_later_letter, place, seen_in, shift_ack, show_at_end, shown, single_neighbours,
        swap_acked, swap_shown, taken_out, torn, unshown, watermark,
    },
};

/// How one fault gets into a history, and what is found then. `None` when the history has no place for it.
pub(crate) struct Planting {
    pub(crate) name: &'static str,
    pub(crate) found: &'static [Kind],
    pub(crate) plant: fn(&mut Plant) -> Option<()>,
}

/// All of them.
pub(crate) const ALL: &[Planting] = &[
    // Lost.
    planting("an acked record is gone", &[Lost], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.lose(place.record, place.partition);
        Some(())
    }),
    planting("the last acked record of a partition is gone", &[Lost], |p| {
        let last = last_of(p, |batch| batch == Outcome::Acked)?;
        p.lose(last.record, last.partition);
        Some(())
    }),
    planting("the first record after the log's start is gone", &[Lost], |p| {
        let first = at_start(p)?;
        p.lose(first.record, first.partition);
        Some(())
    }),
    planting("an acked record is gone, and nobody was ever shown it", &[Lost], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.lose(place.record, place.partition);
        p.hide(place.record, place.partition);
        Some(())
    }),
    planting("an acked batch is gone as a whole", &[Lost], |p| {
        let batch = p.acked(|_, batch| {
            batch.len() > 1 && !Plant::has(batch, Fate::DeadLettered) && Plant::has(batch, Fate::Kept)
        })?;
        for place in p.places(&batch) {
            p.lose(place.record, place.partition);
        }
        Some(())
    }),
    planting("the log ends before its last acked record", &[Lost, WatermarkBehindAck], |p| {
        let last = last_of(p, |batch| batch == Outcome::Acked)?;
        if p.end(last.partition) != last.offset + 1 {
            return None;
        }
        cut(p, last.partition, last.offset);
        Some(())
    }),
    planting("a dead letter is gone", &[Lost], |p| {
        let batch = p.batch(|_, batch| batch.outcome == Outcome::Acked && Plant::has(batch, Fate::DeadLettered))?;
        let record = p.with_fate(&batch, Fate::DeadLettered)?;
        p.lose(record, LETTERS);
        Some(())
    }),
    planting("the last dead letter is gone", &[Lost], |p| {
        let last = last_seen(p, LETTERS)?.record?;
        if p.batch_of(last).outcome != Outcome::Acked {
            return None;
        }
        p.lose(last, LETTERS);
        Some(())
    }),
    planting("another record lies where an acked one was", &[Lost, InconsistentOffset, Duplicated], |p| {
        let (first, second) = p.neighbours(true, false)?;
        p.replace(first.partition, second.offset, Some(first.record), false);
        Some(())
    }),
    // Refused and stored.
    planting("a refused record is stored", &[RefusedStored], |p| {
        let batch =
            p.batch(|p, batch| batch.outcome == Outcome::Refused && batch.fates[0] == Fate::Kept && p.is_last(batch))?;
        p.append(batch.partition, Some(batch.id(0)));
        Some(())
    }),
    planting("a dead letter of a refused batch is stored", &[RefusedStored], |p| {
        let batch = p.batch(|p, batch| {
            batch.outcome == Outcome::Refused
                && batch.len() == 1
                && batch.fates[0] == Fate::DeadLettered
                && no_later_letter(p, batch.id(0))
        })?;
        p.append(LETTERS, Some(batch.id(0)));
        Some(())
    }),
    planting("a stored batch was said to be refused", &[RefusedStored], |p| {
        let batch = p.unknown(true, |_, batch| batch.answered.is_some() && Plant::has(batch, Fate::Kept))?;
        let (partition, first, count) = (batch.partition, batch.first, batch.len() as u64);
        *p.what(batch.answered?) = What::Refused { partition, first, count };
        Some(())
    }),
    // Torn.
    planting("one record of a batch without an answer is missing", &[Torn], |p| torn(p, |count| count / 2)),
    planting("the last record of a batch without an answer is missing", &[Torn], |p| torn(p, |count| count - 1)),
    planting("the first record of a batch without an answer is missing", &[Torn], |p| torn(p, |_| 0)),
    planting("a dead letter of a batch without an answer is missing", &[Torn], |p| {
        let batch = p.unknown(true, |_, batch| {
            batch.sends == 1 && Plant::has(batch, Fate::Kept) && Plant::has(batch, Fate::DeadLettered)
        })?;
        let record = p.with_fate(&batch, Fate::DeadLettered)?;
        p.lose(record, LETTERS);
        p.hide(record, LETTERS);
        Some(())
    }),
    planting("a batch without an answer does not lie in one piece", &[Torn], |p| {
        let batch = p.unknown(true, |p, batch| {
            batch.sends == 1
                && batch.len() > 1
                && batch.fates[batch.len() - 1] == Fate::Kept
                && batch.fates[0] == Fate::Kept
                && !p.was_shown(batch.id(batch.len() - 1))
                && batch.base.unwrap() + batch.len() as u64 == p.end(batch.partition)
        })?;
        let record = batch.id(batch.len() - 1);
        p.lose(record, batch.partition);
        let last = *p.finals(batch.partition).last()?;
        let What::Final { next_offset, .. } = p.what(last) else { return None };
        *next_offset += 1;
        p.append(batch.partition, Some(record));
        Some(())
    }),
    planting("one record of a batch that was not stored is there", &[Torn], |p| {
        let batch = p.unknown(false, |p, batch| {
            batch.sends == 1 && batch.partition != FILTERED && batch.len() > 1 && p.is_last(batch)
        })?;
        p.append(batch.partition, Some(batch.id(1)));
        Some(())
    }),
    // Duplicated.
    planting("an acked record is stored again at the end", &[Duplicated], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.append(place.partition, Some(place.record));
        Some(())
    }),
    planting("an acked batch is stored again at the end", &[Duplicated], |p| {
        let batch = p.acked(|_, batch| batch.len() > 1 && Plant::has(batch, Fate::Kept))?;
        for place in p.places(&batch) {
            p.append(place.partition, Some(place.record));
        }
        Some(())
    }),
    planting("an acked record is stored again right behind its batch, for all to see", &[Duplicated], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.insert(place.partition, batch.base? + batch.len() as u64, place.record);
        Some(())
    }),
    planting("the first record of a partition is stored again at its end", &[Duplicated], |p| {
        let first = at_start(p)?;
        p.append(first.partition, Some(first.record));
        Some(())
    }),
    planting("a dead letter is stored twice", &[Duplicated], |p| {
        let batch = p.batch(|_, batch| batch.outcome == Outcome::Acked && Plant::has(batch, Fate::DeadLettered))?;
        let record = p.with_fate(&batch, Fate::DeadLettered)?;
        p.append(LETTERS, Some(record));
        Some(())
    }),
    // Unknown and stored twice.
    planting("a record without an answer is stored again at the end", &[UnknownStoredTwice], |p| {
        let batch = p.unknown(true, |_, batch| batch.answered.is_some() && Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.append(place.partition, Some(place.record));
        Some(())
    }),
    planting("a record that nobody waited for is stored twice", &[UnknownStoredTwice], |p| {
        let batch = p.unknown(true, |_, batch| batch.answered.is_none() && Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.append(place.partition, Some(place.record));
        Some(())
    }),
    planting(
        "a retry of a batch without an answer is stored behind the first, for all to see",
        &[UnknownStoredTwice],
        |p| {
            let batch = p.unknown(true, |_, batch| Plant::has(batch, Fate::Kept))?;
            let at = batch.base? + batch.len() as u64;
            for (index, place) in p.places(&batch).into_iter().enumerate() {
                p.insert(place.partition, at + index as u64, place.record);
            }
            Some(())
        },
    ),
    planting("a batch that was not stored is there twice", &[UnknownStoredTwice], |p| {
        let batch = p.unknown(false, |p, batch| batch.partition != FILTERED && p.is_last(batch))?;
        for _ in 0..2 {
            for index in 0..batch.len() {
                p.append(batch.partition, Some(batch.id(index)));
            }
        }
        Some(())
    }),
    planting("a dead letter of a batch without an answer is stored twice", &[UnknownStoredTwice], |p| {
        let batch = p.unknown(true, |_, batch| Plant::has(batch, Fate::DeadLettered))?;
        let record = p.with_fate(&batch, Fate::DeadLettered)?;
        p.append(LETTERS, Some(record));
        Some(())
    }),
    // Reordered.
    planting("two acked batches of a producer lie the wrong way round", &[Reordered], |p| {
        let (first, second) = single_neighbours(p, |first, second| first == second, false)?;
        swap_acked(p, first, second)
    }),
    planting(
        "two acked batches of a producer were told the wrong way round, and retention took them",
        &[Reordered],
        |p| {
            let (first, second) = single_neighbours(p, |first, second| first == second, true)?;
            swap_acked(p, first, second)
        },
    ),
    planting("a record lies before one that was acked before it was sent", &[Reordered], |p| {
        let (first, second) = single_neighbours(p, |first, second| first != second, false)?;
        let (acked, sent) = (p.batch_of(first.record).answered?, p.batch_of(second.record).sent);
        if acked > sent {
            return None;
        }
        swap_acked(p, first, second)
    }),
    planting("two records without an answer lie the wrong way round", &[Reordered], |p| {
        let single = |p: &Plant, batch: &Batch| batch.fates == [Fate::Kept] && !p.was_shown(batch.id(0));
        let first = p.unknown(true, single)?;
        let second = p.unknown(true, move |p, batch| {
            single(p, batch)
                && (batch.producer, batch.partition) == (first.producer, first.partition)
                && batch.first > first.first
        });
        let first = p.batch_of(first.id(0));
        let (first, second) = (p.place(&first)?, {
            let second = second?;
            p.place(&second)?
        });
        p.swap(first, second);
        Some(())
    }),
    planting("two dead letters of a producer lie the wrong way round", &[Reordered], |p| {
        let letters = seen_in(p, LETTERS);
        let pairs = letters.windows(2).filter_map(|pair| {
            let (first, second) = (pair[0].record?, pair[1].record?);
            (first.producer == second.producer).then_some((pair[0], pair[1]))
        });
        let (first, second) = p.pick(pairs.collect())?;
        p.swap(place(LETTERS, first)?, place(LETTERS, second)?);
        Some(())
    }),
    // Inconsistent offsets.
    planting("records of two producers lie at each other's offsets", &[InconsistentOffset], |p| {
        let (first, second) = p.neighbours(false, false)?;
        if p.batch_of(first.record).answered? < p.batch_of(second.record).sent {
            return None;
        }
        p.swap_in_final(first, second);
        Some(())
    }),
    planting(
        "adjacent records of two batches of a producer lie at each other's offsets",
        &[InconsistentOffset, Reordered],
        |p| {
            let (first, second) = p.neighbours(true, false)?;
            p.swap_in_final(first, second);
            Some(())
        },
    ),
    planting("an ack names the offset behind", &[InconsistentOffset], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        shift_ack(p, batch.answered?, 1)
    }),
    planting("an ack names the offset before", &[InconsistentOffset], |p| {
        let batch = p.acked(|_, batch| batch.base > Some(0) && Plant::has(batch, Fate::Kept))?;
        shift_ack(p, batch.answered?, -1)
    }),
    planting("an ack of which nothing is stored names the offset of another", &[InconsistentOffset], |p| {
        let batch = p.acked(|p, batch| {
            !Plant::has(batch, Fate::Kept) && kept_at(p, batch.partition, batch.base.unwrap() + batch.len() as u64)
        })?;
        shift_ack(p, batch.answered?, 1)
    }),
    planting("an ack covers one offset too many", &[InconsistentOffset], |p| {
        let batch = p.acked(|_, _| true)?;
        let What::Ack { next_offset, .. } = p.what(batch.answered?) else { return None };
        *next_offset += 1;
        Some(())
    }),
    planting("a reader is shown two records at each other's offsets", &[InconsistentOffset], |p| {
        let (event, at) = in_a_read(p, false)?;
        swap_shown(p, event, at)
    }),
    planting(
        "a reader is shown two records at each other's offsets, and retention took them",
        &[InconsistentOffset],
        |p| {
            let (event, at) = in_a_read(p, true)?;
            swap_shown(p, event, at)
        },
    ),
    planting("a reader is shown an acked record elsewhere", &[InconsistentOffset], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        // Beyond the end of everything: nobody else says what lies there.
        let offset = p.end(place.partition) + 5;
        let records = vec![Seen { offset, record: Some(place.record) }];
        let what = What::Read { partition: place.partition, from: offset, next_offset: offset + 1, records };
        let at = p.finals(PLAIN)[0];
        p.events().insert(at, Event { at_us: 0, client: 500, what });
        Some(())
    }),
    // Answered twice.
    planting("a record is acked twice, at two offsets", &[AnsweredTwice], |p| {
        let batch = p.acked(|_, _| true)?;
        again(p, batch.answered?, |what| {
            let What::Ack { base_offset, next_offset, .. } = what else { return };
            (*base_offset, *next_offset) = (*base_offset + 3, *next_offset + 3);
        })
    }),
    planting("a record is acked twice alike", &[AnsweredTwice], |p| {
        let batch = p.acked(|_, _| true)?;
        again(p, batch.answered?, |_| {})
    }),
    planting("a record is refused after it was acked", &[AnsweredTwice], |p| {
        let batch = p.acked(|_, _| true)?;
        let (partition, first, count) = (batch.partition, batch.first, batch.len() as u64);
        again(p, batch.answered?, |what| *what = What::Refused { partition, first, count })
    }),
    planting("a record is acked after it was refused", &[AnsweredTwice], |p| {
        let batch = p.batch(|_, batch| batch.outcome == Outcome::Refused)?;
        let (partition, first, count) = (batch.partition, batch.first, batch.len() as u64);
        let books = books(&batch.fates);
        let base_offset = p.end(partition) + 7;
        again(p, batch.answered?, |what| {
            *what = What::Ack { partition, first, count, base_offset, next_offset: base_offset + count, books };
        })
    }),
    // Foreign.
    planting("a record that nobody sent lies at the end", &[Foreign], |p| {
        let partition = p.rng.pick(&SENT_TO);
        p.append(partition, Some(RecordId { producer: 0, partition, number: 1_000_000 }));
        Some(())
    }),
    planting("a record of a stranger lies among the dead letters", &[Foreign], |p| {
        p.append(LETTERS, Some(RecordId { producer: 77, partition: FILTERED, number: 0 }));
        Some(())
    }),
    planting("an acked record is damaged", &[Foreign], |p| {
        let batch = p.acked(|_, batch| Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.replace(place.partition, place.offset, None, false);
        Some(())
    }),
    planting("a record without an answer is damaged", &[Foreign], |p| {
        let batch =
            p.unknown(true, |_, batch| Plant::has(batch, Fate::Kept) && !Plant::has(batch, Fate::DeadLettered))?;
        let place = p.place(&batch)?;
        p.replace(place.partition, place.offset, None, true);
        Some(())
    }),
    planting("a reader is shown a damaged record", &[Foreign], |p| {
        let (event, at) = any_shown(p)?;
        let What::Read { records, .. } = p.what(event) else { return None };
        records[at].record = None;
        Some(())
    }),
    planting("a reader is shown a record that nobody sent", &[Foreign], |p| {
        let (event, at) = any_shown(p)?;
        let What::Read { records, .. } = p.what(event) else { return None };
        records[at].record.as_mut()?.producer = 55;
        Some(())
    }),
    planting("a reader is shown a record before it was sent", &[Foreign, Reordered], |p| {
        let batch = p.unknown(true, |p, batch| {
            batch.answered.is_none()
                && batch.sends == 1
                && p.is_last(batch)
                && batch.fates == [Fate::Kept]
                && p.was_shown(batch.id(0))
        })?;
        let shows_it = |event: &usize| shown(p, *event).iter().any(|seen| seen.record == Some(batch.id(0)));
        let shown = p.reads().into_iter().filter(shows_it);
        let shown = shown.min()?;
        let sent = p.events().remove(batch.sent);
        p.events().insert(shown, sent);
        Some(())
    }),
    // Wrong partition.
    planting("an acked record lies in another partition", &[WrongPartition], |p| {
        let batch = p.acked(|_, batch| batch.partition == PLAIN)?;
        let place = p.place(&batch)?;
        p.lose(place.record, PLAIN);
        p.append(TRIMMED, Some(place.record));
        Some(())
    }),
    planting("an acked record lies in another partition as well", &[WrongPartition], |p| {
        let batch = p.acked(|_, batch| batch.partition == PLAIN)?;
        let place = p.place(&batch)?;
        p.append(FILTERED, Some(place.record));
        Some(())
    }),
    planting("a record that did not fail lies among the dead letters", &[WrongPartition], |p| {
        let batch = p.acked(|_, batch| batch.partition == FILTERED && Plant::has(batch, Fate::Kept))?;
        let place = p.place(&batch)?;
        p.append(LETTERS, Some(place.record));
        Some(())
    }),
    planting("a reader is shown a record of another partition", &[WrongPartition], |p| {
        let batch = p.acked(|_, batch| batch.partition == PLAIN)?;
        let (record, events) = (batch.id(0), p.reads());
        let is_of_another =
            |event: &usize| *event > batch.sent && p.partition_of(*event) == TRIMMED && !shown(p, *event).is_empty();
        let later = events.into_iter().filter(is_of_another);
        let event = p.pick(later.collect())?;
        let What::Read { records, .. } = p.what(event) else { return None };
        records[0].record = Some(record);
        Some(())
    }),
    // Reads that do not go forward.
    planting("a reader is shown the same twice", &[NonMonotonicRead], |p| {
        let (event, _) = any_shown(p)?;
        let read = p.history().events[event].clone();
        p.events().insert(event + 1, read);
        Some(())
    }),
    planting("a reader is shown two records the wrong way round", &[NonMonotonicRead], |p| {
        let reads = p.reads().into_iter().filter(|event| shown(p, *event).len() > 1);
        let event = p.pick(reads.collect())?;
        let What::Read { records, .. } = p.what(event) else { return None };
        let count = records.len();
        records.swap(count - 1, count - 2);
        // Who was told of the last one knows what comes next.
        forget_reader_after(p, event);
        Some(())
    }),
    planting("a reader goes back by one record", &[NonMonotonicRead], |p| {
        let (before, after) = continued_read(p)?;
        let last = *shown(p, before).last()?;
        let What::Read { from, records, .. } = p.what(after) else { return None };
        *from = last.offset;
        records.insert(0, last);
        Some(())
    }),
    planting("a reader is shown more than it was told", &[NonMonotonicRead], |p| {
        let ends_with_a_record = |event: &usize| match &p.history().events[*event].what {
            What::Read { next_offset, records, .. } => {
                records.last().is_some_and(|last| last.offset + 1 == *next_offset)
            }
            _ => false,
        };
        let reads = p.reads().into_iter().filter(ends_with_a_record);
        let event = p.pick(reads.collect())?;
        let What::Read { next_offset, .. } = p.what(event) else { return None };
        *next_offset -= 1;
        forget_reader_after(p, event);
        Some(())
    }),
    planting("the final log has two records the wrong way round", &[NonMonotonicRead], |p| {
        let (first, second) = p.neighbours(false, false)?;
        let swap = |records: &mut Vec<Seen>| {
            let at =
                records.windows(2).position(|pair| pair[0].offset == first.offset && pair[1].offset == second.offset);
            at.into_iter().for_each(|at| records.swap(at, at + 1));
        };
        let before = p.run.history.clone();
        p.in_final(first.partition, swap);
        // Readers would be told the right way round, which is another matter.
        (*p.history() != before && !p.was_shown(first.record) && !p.was_shown(second.record)).then_some(())?;
        drop_reads_of(p, first.partition);
        Some(())
    }),
    // Gaps.
    planting("a reader is not shown a record in the middle of a read", &[GapOverRecord], |p| {
        unshown(p, |count| count / 2)
    }),
    planting("a reader is not shown the last record of a read", &[GapOverRecord], |p| unshown(p, |count| count - 1)),
    planting("a reader is not shown the record it begins at", &[GapOverRecord], |p| {
        let events = &p.history().events;
        let first = |event: &usize| {
            let (client, What::Read { partition, from, records, .. }) = (events[*event].client, &events[*event].what)
            else {
                return false;
            };
            let before = events[..*event]
                .iter()
                .rev()
                .find(|other| other.client == client && matches!(other.what, What::Read { .. } | What::Seek { .. }));
            let sought = before.is_some_and(|event| matches!(event.what, What::Seek { to: Some(_), .. }));
            sought && records.len() > 1 && records[0].offset == *from && records[0].offset >= p.start(*partition)
        };
        let reads = p.reads().into_iter().filter(first).collect();
        let event = p.pick(reads)?;
        let What::Read { records, .. } = p.what(event) else { return None };
        records.remove(0);
        Some(())
    }),
    planting("a reader is told of a gap where records are", &[GapOverRecord], |p| {
        let (_, after) = continued_read(p)?;
        let What::Read { records, .. } = p.what(after) else { return None };
        records.clear();
        Some(())
    }),
    planting("a reader skips a read", &[GapOverRecord], |p| {
        let (_, after) = continued_read(p)?;
        let (client, next) = (
            p.history().events[after].client,
            p.history().events[after + 1..].iter().position(|event| {
                event.client == p.history().events[after].client
                    && matches!(event.what, What::Read { .. } | What::Seek { .. })
            })?,
        );
        let next = &p.history().events[after + 1 + next];
        (next.client == client && matches!(&next.what, What::Read { records, .. } if !records.is_empty()))
            .then_some(())?;
        p.events().remove(after);
        Some(())
    }),
    planting("a reader is not shown a record without an answer", &[GapOverRecord], |p| {
        let (event, at) = any_shown(p)?;
        let (records, record) = (shown(p, event), shown(p, event)[at].record?);
        let is_alone = records.len() == 1 || is_letters(p.partition_of(event));
        if is_alone || p.batch_of(record).outcome != Outcome::Unknown {
            return None;
        }
        p.hide(record, record.partition);
        Some(())
    }),
    planting("a reader is not shown a dead letter", &[GapOverRecord], |p| {
        let reads = p.reads().into_iter().filter(|event| {
            matches!(p.history().events[*event].what, What::Read { partition: LETTERS, .. })
                && shown(p, *event).len() > 1
        });
        let event = p.pick(reads.collect())?;
        let What::Read { records, .. } = p.what(event) else { return None };
        records.remove(1);
        Some(())
    }),
    // Shown and vanished.
    planting("a record without an answer was shown and is gone", &[Vanished], |p| {
        let batch = p.unknown(true, |p, batch| batch.fates == [Fate::Kept] && p.was_shown(batch.id(0)))?;
        p.lose(batch.id(0), batch.partition);
        Some(())
    }),
    planting("a reader was shown a record that was never stored", &[Vanished], |p| {
        let batch = p.unknown(false, |_, batch| batch.fates[0] == Fate::Kept)?;
        show_at_end(p, batch.partition, batch.id(0), batch.sent)
    }),
    planting("a reader was shown a refused record", &[Vanished], |p| {
        let batch = p.batch(|_, batch| batch.outcome == Outcome::Refused && batch.fates[0] == Fate::Kept)?;
        show_at_end(p, batch.partition, batch.id(0), batch.sent)
    }),
    planting("a dead letter without an answer was shown and is gone", &[Vanished], |p| {
        let batch = p.unknown(true, |p, batch| batch.fates == [Fate::DeadLettered] && p.was_shown(batch.id(0)))?;
        p.lose(batch.id(0), LETTERS);
        Some(())
    }),
    // Watermarks.
    planting("who asks after an ack is told of an end before it", &[WatermarkBehindAck], |p| {
        let (event, floor) = watermark(p)?;
        let What::Watermark { offset, .. } = p.what(event) else { return None };
        *offset = floor - 1;
        Some(())
    }),
    planting("who asks after an ack is told of an empty partition", &[WatermarkBehindAck], |p| {
        let (event, _) = watermark(p)?;
        let What::Watermark { offset, .. } = p.what(event) else { return None };
        *offset = 0;
        Some(())
    }),
    planting("the log ends before an acked batch of which nothing was kept", &[WatermarkBehindAck], |p| {
        let batch = p.acked(|p, batch| {
            !Plant::has(batch, Fate::Kept) && batch.base.unwrap() + batch.len() as u64 == p.end(batch.partition)
        })?;
        cut(p, batch.partition, batch.base?);
        Some(())
    }),
    planting("an end was told that there never was", &[WatermarkFell], |p| {
        let events = p.find(|what| matches!(what, What::Watermark { .. }));
        let event = p.pick(events)?;
        let What::Watermark { offset, .. } = p.what(event) else { return None };
        *offset += 1_000;
        Some(())
    }),
    planting("the end is lower than it was told before, and nothing was acked", &[WatermarkFell], |p| {
        let end = p.end(LETTERS);
        let (client, what) = (
            500,
            [
                What::Ask { partition: LETTERS },
                What::Watermark { partition: LETTERS, offset: end },
                What::Ask { partition: LETTERS },
                What::Watermark { partition: LETTERS, offset: end.checked_sub(1)? },
            ],
        );
        let last = p.finals(PLAIN)[0];
        for what in what.into_iter().rev() {
            p.events().insert(last, Event { at_us: 0, client, what });
        }
        Some(())
    }),
    planting("the end is lower than what a reader was shown", &[WatermarkFell], |p| {
        let last = last_seen(p, LETTERS)?;
        let read =
            What::Read { partition: LETTERS, from: last.offset, next_offset: last.offset + 1, records: vec![last] };
        let what =
            [read, What::Ask { partition: LETTERS }, What::Watermark { partition: LETTERS, offset: last.offset }];
        let at = p.finals(PLAIN)[0];
        for what in what.into_iter().rev() {
            p.events().insert(at, Event { at_us: 0, client: 500, what });
        }
        Some(())
    }),
    planting("a log start was told that there never was", &[LogStartFell], |p| {
        let events = p.find(|what| matches!(what, What::LogStart { .. }));
        let event = p.pick(events)?;
        let What::LogStart { offset, .. } = p.what(event) else { return None };
        *offset += 1_000;
        Some(())
    }),
    planting("a log start falls to what it was", &[LogStartFell], |p| {
        let starts = p.find(|what| matches!(what, What::LogStart { partition: TRIMMED, offset } if *offset > 0));
        let asked = starts.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let (before, after) = p.pick(asked)?;
        let client = p.history().events[after].client;
        let ask = p.history().events[..after]
            .iter()
            .rposition(|event| event.client == client && event.what == What::Ask { partition: TRIMMED })?;
        if ask < before {
            return None;
        }
        let What::LogStart { offset, .. } = p.what(after) else { return None };
        *offset = 0;
        Some(())
    }),
    planting("what retention took is there again", &[LogStartFell], |p| {
        let start = p.start(TRIMMED);
        let offset = start.checked_sub(1)?;
        let gone = p.batch(|p, batch| {
            batch.partition == TRIMMED
                && batch.base.is_some()
                && p.places(batch).iter().any(|place| place.offset == offset)
        })?;
        let place = p.places(&gone).into_iter().find(|place| place.offset == offset)?;
        let first = p.finals(TRIMMED)[0];
        let What::Final { from, records, .. } = p.what(first) else { return None };
        *from = offset;
        records.insert(0, Seen { offset, record: Some(place.record) });
        for what in [What::LogStart { partition: TRIMMED, offset: start }, What::Ask { partition: TRIMMED }] {
            p.events().insert(first, Event { at_us: 0, client: 500, what });
        }
        // Of a batch that is there in part only, other things would be said.
        (gone.base == Some(offset) || gone.outcome == Outcome::Acked).then_some(())
    }),
    // Books.
    planting("a batch's books count one too many", &[Books], |p| in_books(p, |books| books.kept += 1)),
    planting("a batch's books count one too few", &[Books], |p| in_books(p, |books| books.records_in -= 1)),
    planting("a batch's books balance and are wrong", &[Books], |p| {
        in_books(p, |books| (books.kept, books.dropped) = (books.dropped + 1, books.kept - 1))
    }),
    planting("a batch's books forget what is stored", &[Books], |p| in_books(p, |books| books.stored += 1)),
    planting("a batch's books are empty", &[Books], |p| in_books(p, |books| *books = protocol::Books::default())),
    planting("a producer's books do not add up", &[Books], |p| {
        let events = p.find(|what| matches!(what, What::Total { .. }));
        let event = p.pick(events)?;
        let What::Total { books } = p.what(event) else { return None };
        books.dropped += 1;
        Some(())
    }),
    planting("a dropped record is stored", &[Books], |p| taken_out(p, Fate::Dropped)),
    planting("a rejected record is stored", &[Books], |p| taken_out(p, Fate::Rejected)),
    planting("a dead letter is stored in its own partition as well", &[Books], |p| taken_out(p, Fate::DeadLettered)),
    // No history at all.
    planting("a part of the final log is missing", &[Malformed], |p| {
        let partitions: Vec<u32> = (0..4).filter(|partition| p.finals(*partition).len() > 2).collect();
        let partition = p.pick(partitions)?;
        let middle = p.finals(partition)[1];
        // Nothing is said to be lost in a hole of nothing.
        let What::Final { records, from, next_offset, .. } = p.what(middle) else { return None };
        (records.is_empty() && from != next_offset).then_some(())?;
        p.events().remove(middle);
        Some(())
    }),
    planting("there is no final log", &[Malformed], |p| {
        p.events().retain(|event| !matches!(event.what, What::Final { partition: LETTERS, .. }));
        Some(())
    }),
    planting("an answer to nothing", &[Malformed], |p| {
        let at = p.finals(PLAIN)[0];
        let what = What::Unknown { partition: PLAIN, first: 1_000_000, count: 1 };
        p.events().insert(at, Event { at_us: 0, client: 0, what });
        Some(())
    }),
    planting("a number is sent twice", &[Malformed], |p| {
        let at = p.finals(PLAIN)[0];
        let what = What::Send { partition: PLAIN, first: 0, fates: vec![Fate::Kept] };
        let sender =
            p.history().events.iter().find(|event| matches!(event.what, What::Send { partition: PLAIN, .. }))?.client;
        p.events().insert(at, Event { at_us: 0, client: sender, what });
        Some(())
    }),
];

const fn planting(name: &'static str, found: &'static [Kind], plant: fn(&mut Plant) -> Option<()>) -> Planting {
    Planting { name, found, plant }
}
