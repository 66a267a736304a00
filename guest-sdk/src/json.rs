//! Values found in JSON text by pointer, without building a document.
//!
//! Owns a scanner that reads the text once, checks all of it, and shows the values that were asked for where they lie. It
//! takes and refuses exactly what `serde_json` does as a `Value` (UTF-8, one value, nesting up to 127, paired
//! surrogates), but for numbers too large for a double, which it takes. Never allocates, but to undo escapes.
//!
//! ```
//! use guest_sdk::json::{self, Pointer};
//!
//! let status: Pointer = "/response/status".parse().unwrap();
//! let text = br#"{"path":"/a","response":{"status":404}}"#;
//! let value = json::find(text, &status).unwrap().unwrap();
//! assert_eq!(value.number().unwrap(), 404.into());
//! ```
//!
//! Start at [`find`] and [`find_all`].

mod pointer;
mod scan;
mod string;
mod value;

use std::ops::ControlFlow;

pub use pointer::{Pointer, PointerInvalid};
pub use scan::{JsonError, Problem};
pub use string::push_str;
pub use value::{Kind, Number, Value};

/// The value at a pointer; where an object has a name twice, the last one, as `serde_json` has it.
///
/// # Errors
/// Where the text, anywhere, is not JSON.
pub fn find<'a>(json: &'a [u8], pointer: &Pointer) -> Result<Option<Value<'a>>, JsonError> {
    let mut found = None;
    find_all(json, std::slice::from_ref(pointer), |_, value| found = Some(value))?;
    Ok(found)
}

/// The first value at a pointer, reading no further than its end: cheaper, but what follows may be other than JSON.
///
/// # Errors
/// Where the text up to there is not JSON.
pub fn find_first<'a>(json: &'a [u8], pointer: &Pointer) -> Result<Option<Value<'a>>, JsonError> {
    let mut found = None;
    scan::pointers(json, std::slice::from_ref(pointer), &mut |_, value| {
        found = Some(value);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Shows every value at any of the pointers, with the pointer's index: each time a name occurs, in the order in which they
/// end in the text (what is inside another value, before it). More than 64 pointers take a further pass for every 64.
///
/// # Errors
/// Where the text, anywhere, is not JSON; some values may have been shown.
pub fn find_all<'a>(
    json: &'a [u8],
    pointers: &[Pointer],
    mut show: impl FnMut(usize, Value<'a>),
) -> Result<(), JsonError> {
    scan::pointers(json, pointers, &mut |pointer, value| {
        show(pointer, value);
        ControlFlow::Continue(())
    })
}

/// Shows the members of an object in order, name (a string) and value, and says whether it is one.
///
/// # Errors
/// Where the text, anywhere, is not JSON; some members may have been shown.
pub fn members<'a>(json: &'a [u8], show: impl FnMut(Value<'a>, Value<'a>)) -> Result<bool, JsonError> {
    scan::members(json, show)
}

#[cfg(test)]
mod tests;
