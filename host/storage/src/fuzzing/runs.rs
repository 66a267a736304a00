//! Runs of record batches, as far as the log looks at them.

use bytes::Bytes;

use crate::batches::{take, walk};

/// Any bytes as a run of batches.
pub fn batch_run(data: &[u8]) {
    let run = Bytes::copy_from_slice(data);
    let mut end = 0;
    for span in walk(&run) {
        let Ok(span) = span else { break };
        assert_eq!(span.start, end, "batches lie side by side");
        assert!(span.end > span.start && span.next_offset > span.base_offset);
        end = span.end;
    }
    assert!(end <= run.len());
    let offsets: Vec<u64> = walk(&run).map_while(Result::ok).map(|span| span.base_offset).take(8).collect();
    for from in offsets.into_iter().chain([0, u64::MAX]) {
        for (max_bytes, first_always) in [(0, false), (0, true), (run.len() / 2, true), (usize::MAX, false)] {
            check_taken(&run, from, max_bytes, first_always);
        }
    }
}

fn check_taken(run: &Bytes, from: u64, max_bytes: usize, first_always: bool) {
    let Ok(taken) = take(run, from, max_bytes, first_always) else { return };
    let mut batches = 0;
    for span in walk(&taken.batches) {
        let span = span.expect("whole batches are taken");
        assert!(batches > 0 || span.next_offset > from, "the first batch lies before what was asked for");
        batches += 1;
    }
    assert!(taken.batches.len() <= max_bytes || (first_always && batches == 1), "more is taken than was asked for");
    if let Some(stopped_at) = taken.stopped_at {
        assert!(stopped_at >= from, "taking went back");
    }
}
