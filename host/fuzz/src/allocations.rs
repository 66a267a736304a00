//! How much a target allocates: the bytes one thread holds, counted by an allocator that every program here has.
//!
//! Never refuses anything: [`bounded`] panics after the fact, so that the input is kept like that of any other fault.

#![expect(unsafe_code, reason = "an allocator cannot do without; each call is passed on to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, with a count per thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What this thread holds, and the most it held: more was given back than taken where another thread took it.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is passed on as it came, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above; zeroed pages come as they are, so that a large buffer costs what is touched of it.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Runs something that may hold this many bytes at a time, beyond what is held already.
///
/// # Panics
/// When it held more.
pub fn bounded<T>(bytes_max: usize, run: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    let peak = (PEAK.get() - before).max(0) as usize;
    assert!(peak <= bytes_max, "{peak} bytes were held at a time, where {bytes_max} are allowed");
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_a_time_is_counted_and_what_was_given_back_is_not() {
        bounded(3_000, || (0..100).for_each(|_| drop(std::hint::black_box(vec![0_u8; 2_000]))));
        let over = std::panic::catch_unwind(|| {
            bounded(3_000, || drop(std::hint::black_box([vec![0_u8; 2_000], vec![1; 2_000]])))
        });
        assert!(over.is_err());
    }
}
