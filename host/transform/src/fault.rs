//! What can go wrong in one call into a guest.
//!
//! Owns the line between the guest's fault, which harms its records, and the host's, which harms none: the call is
//! tried again later.

use abi::HostCode;
use protocol::limits::GUEST_TEXT_BYTES_MAX;
use wasmtime::{Trap, WasmBacktrace};

use crate::{deadline::Expired, imports::Exited};

/// The guest's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// Which kind.
    pub code: HostCode,
    /// What happened, for people; with the guest's last error line where it logged one.
    pub text: String,
    /// The functions it was in, innermost first, where it trapped.
    pub backtrace: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: HostCode, text: impl Into<String>) -> Fault {
        Fault { code, text: cut_text(text.into()), backtrace: None }
    }

    /// Adds what the guest said last.
    pub(crate) fn said(mut self, line: Option<String>) -> Fault {
        if let Some(line) = line {
            self.text = cut_text(format!("{}: {line}", self.text));
        }
        self
    }
}

/// Why a call did not end well.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// The guest's fault.
    Fault(Fault),
    /// Not its fault: the same call may pass later.
    Host(String),
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> CallError {
        CallError::Fault(fault)
    }
}

/// Sorts what wasmtime reports.
pub(crate) fn of_call(error: &wasmtime::Error) -> CallError {
    if let Some(expired) = error.downcast_ref::<Expired>() {
        return match expired {
            Expired::Cpu(_) | Expired::Record(_) => fault(HostCode::Deadline, expired.to_string(), error),
            Expired::Stalled(_) => CallError::Host(format!("guest {expired}")),
        };
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let text = trap.to_string();
        let text = text.strip_prefix("wasm trap: ").unwrap_or(&text);
        return fault(HostCode::Trap, format!("trapped: {text}"), error);
    }
    if let Some(exited) = error.downcast_ref::<Exited>() {
        return fault(HostCode::Trap, exited.to_string(), error);
    }
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return CallError::Host("no room for another plugin instance (`instances_max`)".into());
    }
    // What is left comes from instantiation: a memory or table larger than the limits, a data segment out of bounds.
    fault(HostCode::Trap, format!("cannot run: {}", chain(error)), error)
}

fn fault(code: HostCode, text: String, error: &wasmtime::Error) -> CallError {
    let backtrace = error.downcast_ref::<WasmBacktrace>().and_then(functions);
    Fault { code, text: cut_text(text), backtrace }.into()
}

fn chain(error: &wasmtime::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn functions(backtrace: &WasmBacktrace) -> Option<String> {
    let frames = backtrace.frames();
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    };
    let names: Vec<_> = frames.iter().map(name).collect();
    (!names.is_empty()).then(|| cut_text(crate::guest::one_line(&names.join(" < "))))
}

/// Cuts a text to the limit for texts, at a character.
pub(crate) fn cut_text(mut text: String) -> String {
    if text.len() > GUEST_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(GUEST_TEXT_BYTES_MAX));
    }
    text
}
