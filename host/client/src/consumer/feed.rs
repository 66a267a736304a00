//! What a partition's reader task has read and the consumer has not taken: between them, and bounded by credit.
//!
//! Owns the count of bytes at hand. Never decodes a batch.
//!
//! Invariant: `unread + freed` never exceeds what was granted by more than one frame.
//!
//! Start at [`Feed`].

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::frame::Place;
use tokio::sync::Notify;

use crate::error::ConsumeError;

/// Something a reader task says.
#[derive(Debug)]
pub(super) enum Item {
    /// Reading begins here.
    Started(Place),
    /// Whole batches, and the place behind them.
    Batches { place: Place, batches: Bytes },
    /// Nothing up to this place.
    Gap(Place),
    /// It cannot go on.
    Failed(ConsumeError),
}

/// Wakes the one who owns the consumer.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    waiting: Mutex<Option<Waker>>,
}

impl Arrivals {
    /// Must come before looking at the feeds, so that nothing arrives unseen.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock();
        match &mut *waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let waiting = self.waiting.lock().take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    arrivals: Arc<Arrivals>,
    /// Bytes that may be at hand.
    room: u64,
    state: Mutex<State>,
    /// Wakes the reader task: the program has taken something.
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Bytes that arrived and are not given back.
    unread: u64,
    /// Bytes given back that the task has not granted again.
    freed: u64,
}

impl Feed {
    pub(super) fn new(arrivals: Arc<Arrivals>, room: u64) -> Feed {
        Feed { arrivals, room, state: Mutex::default(), taken: Notify::new() }
    }

    // The task's side.

    /// Hands something over.
    pub(super) fn push(&self, item: Item) {
        {
            let mut state = self.state.lock();
            if let Item::Batches { batches, .. } = &item {
                state.unread += batches.len() as u64;
            }
            match (&item, state.items.back_mut()) {
                // A slow program does not pile up gaps.
                (Item::Gap(place), Some(Item::Gap(before))) => *before = *place,
                _ => state.items.push_back(item),
            }
        }
        self.arrivals.wake();
    }

    /// What a new stream may be granted.
    pub(super) fn first_credit(&self) -> u64 {
        let mut state = self.state.lock();
        state.freed = 0;
        self.room.saturating_sub(state.unread)
    }

    /// What can be granted again, once it is worth a frame.
    pub(super) fn more_credit(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let worth_it = state.freed >= self.room / 4 || (state.freed > 0 && state.unread == 0);
        worth_it.then(|| std::mem::take(&mut state.freed))
    }

    /// Returns when the program has taken something.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    // The consumer's side.

    /// The next item.
    pub(super) fn pop(&self) -> Option<Item> {
        self.state.lock().items.pop_front()
    }

    /// The program is done with this many bytes.
    pub(super) fn give_back(&self, bytes: u64) {
        {
            let mut state = self.state.lock();
            state.unread -= bytes;
            state.freed += bytes;
        }
        self.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(next_offset: u64) -> Place {
        Place { next_offset, high_watermark: 100 }
    }

    #[test]
    fn credit_is_what_the_program_took() {
        let feed = Feed::new(Arc::default(), 1_000);
        assert_eq!(feed.first_credit(), 1_000);
        feed.push(Item::Batches { place: place(1), batches: Bytes::from(vec![0; 600]) });
        feed.push(Item::Batches { place: place(2), batches: Bytes::from(vec![0; 100]) });
        assert_eq!((feed.more_credit(), feed.first_credit()), (None, 300));
        feed.give_back(100);
        assert_eq!(feed.more_credit(), None, "too little for a frame");
        feed.give_back(600);
        assert_eq!((feed.more_credit(), feed.more_credit()), (Some(700), None));
    }

    #[test]
    fn gaps_in_a_row_are_one() {
        let feed = Feed::new(Arc::default(), 1_000);
        feed.push(Item::Gap(place(1)));
        feed.push(Item::Gap(place(7)));
        assert!(matches!(feed.pop(), Some(Item::Gap(last)) if last == place(7)));
        assert!(feed.pop().is_none());
    }
}
