//! The books of a batch say what became of each of its records, and their sums are what clients add up.

use std::collections::HashMap;

use protocol::Books;

use crate::checker::{
    Evidence, Findings, Kind,
    history::{Fate, RecordId, What},
    known::Known,
};

pub(super) fn check(known: &Known<'_>, found: &mut Findings<'_>) {
    let mut by_partition = vec![Books::default(); known.history.partitions.len()];
    let mut by_client = HashMap::<u32, Books>::new();
    for (event, happened) in known.history.events.iter().enumerate() {
        found.step();
        match &happened.what {
            What::Ack { partition, first, count, books, .. } => {
                let first = RecordId { producer: happened.client, partition: *partition, number: *first };
                let Some(expected) = expected(known, first, *count, event, found) else { continue };
                if *books != expected || !books.balance() {
                    let evidence = Evidence { partition: *partition, ..Evidence::default() }.of(first).event(event);
                    found.add(Kind::Books, evidence, || format!("{books:?}, not {expected:?}"));
                }
                by_client.entry(happened.client).or_default().add(books);
                if let Some(sum) = by_partition.get_mut(*partition as usize) {
                    sum.add(books);
                }
            }
            What::Total { books } => {
                let sum = by_client.get(&happened.client).copied().unwrap_or_default();
                if *books != sum {
                    let client = happened.client;
                    let evidence = Evidence::default().event(event);
                    found.add(Kind::Books, evidence, || format!("client {client} has {books:?} in all, not {sum:?}"));
                }
            }
            _ => {}
        }
    }
    found.report.books = by_partition;
}

/// What must be in the books of an acknowledgement; `None` when it is not the first of its records.
fn expected(known: &Known<'_>, first: RecordId, count: u64, event: usize, found: &mut Findings<'_>) -> Option<Books> {
    let mut books = Books::default();
    for index in 0..count {
        found.step();
        let sent = known.sent(RecordId { number: first.number + index, ..first })?;
        sent.answer.filter(|answer| answer.event == event)?;
        books.records_in += 1;
        match sent.fate {
            Fate::Kept => (books.kept, books.stored) = (books.kept + 1, books.stored + 1),
            Fate::Dropped => books.dropped += 1,
            Fate::DeadLettered => books.dead_lettered += 1,
            Fate::Rejected => books.rejected += 1,
        }
    }
    Some(books)
}
