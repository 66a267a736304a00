//! Puts every value into an envelope: what a plugin pays for a new value, with next to no work of its own.
//!
//! A guest for measuring.

mod envelope;

use guest_sdk::{NewValue, Record, guest};

guest! { map: wrap }

fn wrap(record: &Record<'_>, value: &mut NewValue<'_>) {
    envelope::parts(record.value().unwrap_or_default()).into_iter().for_each(|part| value.push(part));
}
