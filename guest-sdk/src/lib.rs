//! Write a weir plugin as one Rust function.
//!
//! A plugin decides about records: keep, replace, drop, multiply, route, or fail. Here is a whole one, which keeps the records that hold a
//! word:
//!
//! ```
//! use guest_sdk::{Record, guest};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     word: String,
//! }
//!
//! fn keep(config: &Config, record: &Record<'_>) -> bool {
//!     let value = record.value().unwrap_or_default();
//!     value.windows(config.word.len()).any(|piece| piece == config.word.as_bytes())
//! }
//!
//! guest! { filter: keep, config: Config }
//!
//! # fn main() {
//! use guest_sdk::testing::{self, Outcome};
//! let outcomes = testing::run::<Guest>(r#"{"word":"cat"}"#, &["a cat".into(), "a dog".into()]);
//! assert_eq!(outcomes.unwrap(), [Outcome::Kept, Outcome::Dropped]);
//! # }
//! ```
//!
//! The kinds of functions, each with `&Config` in front where there is a configuration, and each returning what is named here or
//! a `Result` of it with a [`Failure`]:
//!
//! | kind | function | what becomes of the record |
//! | --- | --- | --- |
//! | `filter` | `fn(&Record<'_>) -> bool` | kept or dropped |
//! | `map` | `fn(&Record<'_>, &mut NewValue)` | its value becomes what was written |
//! | `filter_map` | `fn(&Record<'_>, &mut NewValue) -> Verdict` | as the [`Verdict`] says |
//! | `flat_map` | `fn(&Record<'_>, &mut Records<'_>)` | what was pushed takes its place: none, one or many, here or on other topics |
//!
//! A failure concerns its record only: the transform's `on_error` decides what becomes of it. The same holds for a panic,
//! which costs a fresh instance as well, so it is the dearer way.
//!
//! [`guest!`] makes the exports of the [ABI](abi) on wasm32 and nothing but a type named `Guest` elsewhere, so a plugin is an ordinary
//! crate whose tests run natively, through [`testing`]. What a plugin sees are views of the input; nothing is copied but
//! what it writes. For JSON there is [`json`], which finds values without building a document.
//!
//! Owns the guest's side of the ABI. Never reads a clock and never takes randomness: the same input gives the same output.
//!
//! Start at [`guest!`] and [`Record`].

mod answer;
mod config;
pub mod exports;
mod failure;
mod instance;
pub mod json;
mod log;
mod record;
pub mod run;
pub mod testing;

pub use abi::LogLevel;

pub use answer::{NewRecord, NewValue, Records, Verdict};
pub use config::NoConfig;
pub use failure::{Failure, Outcome};
pub use instance::{Guest, Instance};
pub use log::log;
pub use record::{Batch, BatchMalformed, Header, Headers, Record};
