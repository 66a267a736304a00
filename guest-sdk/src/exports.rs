//! The ABI's own signatures: what only means something inside WebAssembly.
//!
//! Owns [`guest!`](crate::guest), the cursor, the import, and all the `unsafe` there is: exporting a name, and calling
//! the host. Memory is never read through an address from outside; an address is only compared with our buffer's.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "exported names and the imported function are the ABI")
)]

use std::sync::atomic::{AtomicU32, Ordering};

pub use abi::ABI_VERSION;
use abi::{LogLevel, Span};

use crate::{Guest, Instance};

/// The record in hand. An atomic because a `static` must be; in WebAssembly without threads it is a plain number.
#[cfg_attr(target_arch = "wasm32", unsafe(export_name = "weir_cursor"))]
pub static CURSOR: AtomicU32 = AtomicU32::new(0);

/// Says which record is in hand, for the host to read after a trap.
#[inline(always)]
pub(crate) fn set_cursor(record: u32) {
    CURSOR.store(record, Ordering::Relaxed);
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn log(level: LogLevel, line: &str) {
    #[link(wasm_import_module = "weir")]
    unsafe extern "C" {
        #[link_name = "log"]
        fn host_log(level: i32, ptr: *const u8, len: usize);
    }
    // SAFETY: the host reads the line during the call and keeps nothing.
    unsafe { host_log(level as i32, line.as_ptr(), line.len()) }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn log(level: LogLevel, line: &str) {
    eprintln!("{level:?}: {line}");
}

/// Where bytes lie in this module's memory.
fn address_of(bytes: &[u8]) -> u32 {
    // Lossless where it matters: an address has 32 bits in the memory this is compiled for.
    bytes.as_ptr().addr() as u32
}

/// `weir_alloc`.
pub fn alloc<G: Guest>(instance: &mut Instance<G>, len: u32) -> u32 {
    // Without a hook a panic's text is lost: there is no stderr in here.
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| crate::log(LogLevel::Error, format_args!("{panic}")))));
    instance.alloc(len as usize).map_or(0, |buffer| address_of(buffer))
}

/// `weir_describe`.
pub fn describe<G: Guest>(instance: &mut Instance<G>) -> i64 {
    span_of(instance.describe()).pack()
}

/// `weir_init`.
pub fn init<G: Guest>(instance: &mut Instance<G>, ptr: u32, len: u32) -> i32 {
    let taken = is_input(instance, ptr) && instance.init(len as usize);
    if taken { 0 } else { 1 }
}

/// `weir_process`.
pub fn process<G: Guest>(instance: &mut Instance<G>, ptr: u32, len: u32) -> i64 {
    if !is_input(instance, ptr) {
        return -1;
    }
    instance.process(len as usize, address_of).map_or(-1, |output| span_of(output).pack())
}

fn span_of(bytes: &[u8]) -> Span {
    Span { address: address_of(bytes), length: bytes.len() as u32 }
}

fn is_input<G: Guest>(instance: &Instance<G>, ptr: u32) -> bool {
    let ours = address_of(instance.buffers().0) == ptr;
    if !ours {
        log(LogLevel::Error, "the address is not the one `weir_alloc` returned");
    }
    ours
}

/// Registers a function as this crate's plugin.
///
/// ```
/// # use guest_sdk::{Record, guest};
/// fn keep(record: &Record<'_>) -> bool {
///     record.key().is_some()
/// }
///
/// guest! { filter: keep }
/// # fn main() {}
/// ```
///
/// The kind is one of `filter`, `map`, `filter_map` and `flat_map`; the [crate] shows what function each takes. With
/// `config: TYPE` the function gets a `&TYPE` first: any type that serde deserializes, and checked as it is (prepare what is dear
/// with `#[serde(try_from = "...")]`). `schema: "..."`, a JSON Schema of it, is what `weir plugin describe` shows.
///
/// Makes a type `Guest` for [`testing`](crate::testing) and, on wasm32, the exports of the [ABI](abi). The description and
/// version are those in the crate's `Cargo.toml`. Use it once in a crate.
#[macro_export]
macro_rules! guest {
    (filter: $function:path $(,)?) => {
        $crate::guest! { @guest $crate::NoConfig, r#"{"type":"object","maxProperties":0}"#,
            |_config, batch, answer| $crate::run::filter(batch, answer, |record| $function(record)) }
    };
    (filter: $function:path, config: $config:ty $(, schema: $schema:expr)? $(,)?) => {
        $crate::guest! { @guest $config, $crate::guest!(@schema $($schema)?),
            |config, batch, answer| $crate::run::filter(batch, answer, |record| $function(config, record)) }
    };
    ($kind:ident: $function:path $(,)?) => {
        $crate::guest! { @guest $crate::NoConfig, r#"{"type":"object","maxProperties":0}"#,
            |_config, batch, answer| $crate::run::$kind(batch, answer, |record, out| $function(record, out)) }
    };
    ($kind:ident: $function:path, config: $config:ty $(, schema: $schema:expr)? $(,)?) => {
        $crate::guest! { @guest $config, $crate::guest!(@schema $($schema)?),
            |config, batch, answer| $crate::run::$kind(batch, answer, |record, out| $function(config, record, out)) }
    };
    (@schema) => { "{}" };
    (@schema $schema:expr) => { $schema };
    (@guest $config:ty, $schema:expr, |$c:ident, $batch:ident, $answer:ident| $process:expr) => {
        /// This crate's plugin.
        enum Guest {}

        // Natively only tests use it; this keeps the compiler from finding the plugin's code unused.
        const _: fn(&$config, &$crate::Batch<'_>, &mut $crate::run::Answer) -> $crate::run::Processed =
            <Guest as $crate::Guest>::process;

        impl $crate::Guest for Guest {
            type Config = $config;
            const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            const SCHEMA: &'static str = $schema;

            fn process(
                $c: &$config,
                $batch: &$crate::Batch<'_>,
                $answer: &mut $crate::run::Answer,
            ) -> $crate::run::Processed {
                $process
            }
        }

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use ::core::cell::RefCell;

            ::std::thread_local! {
                static INSTANCE: RefCell<$crate::Instance<Guest>> = const { RefCell::new($crate::Instance::new()) };
            }

            #[unsafe(no_mangle)]
            extern "C" fn weir_abi_version() -> i32 {
                $crate::exports::ABI_VERSION
            }
            #[unsafe(no_mangle)]
            extern "C" fn weir_alloc(len: u32) -> u32 {
                INSTANCE.with_borrow_mut(|instance| $crate::exports::alloc(instance, len))
            }
            #[unsafe(no_mangle)]
            extern "C" fn weir_init(ptr: u32, len: u32) -> i32 {
                INSTANCE.with_borrow_mut(|instance| $crate::exports::init(instance, ptr, len))
            }
            #[unsafe(no_mangle)]
            extern "C" fn weir_describe() -> i64 {
                INSTANCE.with_borrow_mut(|instance| $crate::exports::describe(instance))
            }
            #[unsafe(no_mangle)]
            extern "C" fn weir_process(ptr: u32, len: u32) -> i64 {
                INSTANCE.with_borrow_mut(|instance| $crate::exports::process(instance, ptr, len))
            }
        };
    };
}
