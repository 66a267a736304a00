//! Keeps the requests that went wrong, having made a struct of each: what most filters of JSON are written like.
//!
//! A guest for measuring. A value that is not JSON makes it panic, as plugins do that `unwrap`.

mod request;

use guest_sdk::{Record, guest};

guest! { filter: keep }

fn keep(record: &Record<'_>) -> bool {
    request::went_wrong(record.value().unwrap_or_default()).expect("a request is JSON")
}
