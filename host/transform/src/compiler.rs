//! From a checked module to native code: the seam between the engine and whoever does the compiling.
//!
//! Owns what a compiler is ([`Compiler`]), how compiling ends ([`CompileError`]), and the compiler itself
//! ([`precompile`]). A module that passed every structural check may still cost much to compile, so a broker has it done
//! in a limited process of its own, by another [`Compiler`] than the one here. Never runs anything.
//!
//! Invariants
//! - What [`precompile`] writes depends on the module, this version of wasmtime and the processor alone: the engine that
//!   runs it has the same settings, and a pool of instances besides, which compiled code knows nothing of.
//! - [`NativeCode`] is run as it is. Safe code can make it from a module alone.
//!
//! Start at [`Compiler`].

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protocol::units;
use wasmtime::{Engine, OutOfMemory};

use crate::engines::{self, Stack};

/// Compiles modules that passed the structural checks.
pub trait Compiler: fmt::Debug + Send + Sync {
    /// Compiles one, and gives up soon after `cancel` says that nobody waits any more.
    ///
    /// # Errors
    /// See [`CompileError`].
    fn compile(&self, wasm: &[u8], cancel: &Cancel) -> Result<NativeCode, CompileError>;
}

/// Compiles in the process and thread of the caller, which bounds neither memory nor time: for tests, for tools, and for
/// modules of one's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Compiler for InProcess {
    fn compile(&self, wasm: &[u8], _: &Cancel) -> Result<NativeCode, CompileError> {
        precompile(wasm)
    }
}

/// Compiles a module, here and now.
///
/// # Errors
/// [`CompileError::Refused`] when wasmtime does not take it, and [`CompileError::Host`] when memory is out. (Most of the
/// compiler does not survive that: then the process ends.)
pub fn precompile(wasm: &[u8]) -> Result<NativeCode, CompileError> {
    // An engine of its own costs little, and without a pool of instances it reserves no addresses.
    let compiled = Engine::new(&engines::config(Stack::DEFAULT)).and_then(|engine| engine.precompile_module(wasm));
    compiled.map(NativeCode).map_err(|error| match error.is::<OutOfMemory>() {
        true => CompileError::Host(io::ErrorKind::OutOfMemory.into()),
        false => CompileError::Refused(format!("{error:#}")),
    })
}

/// What wasmtime made of a module: native code in its own format.
pub struct NativeCode(Vec<u8>);

impl NativeCode {
    /// Takes bytes for native code that [`precompile`] made, in another process.
    ///
    /// # Safety
    /// They are run as they are, with everything this process may do. They must be all that [`precompile`] returned, as
    /// it was returned, in a process that is trusted like this one.
    #[expect(unsafe_code, reason = "bytes that are taken for code cannot be checked")]
    pub unsafe fn from_bytes(bytes: Vec<u8>) -> NativeCode {
        NativeCode(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NativeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeCode").field("bytes", &self.0.len()).finish()
    }
}

/// Tells a compilation that nobody waits for it any more. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Nobody waits any more.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether nobody waits any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What to do about a module that costs too much.
const WAY_OUT: &str = "split its largest functions, build it with `opt-level = \"s\"`";

/// Why a module was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// wasmtime does not take it.
    #[error("module cannot be compiled: {0}")]
    Refused(String),
    /// It takes more memory than compiling may.
    #[error(
        "compiling the module takes more than `transforms.compile_memory_bytes` ({}); {WAY_OUT}, or raise it",
        units::exact_bytes(*.max)
    )]
    Memory {
        /// The limit.
        max: u64,
    },
    /// It takes more CPU time than compiling may.
    #[error("compiling the module takes more than `transforms.compile_cpu_seconds` ({max} s); {WAY_OUT}, or raise it")]
    Cpu {
        /// The limit, in seconds.
        max: u64,
    },
    /// Its native code is larger than any may be.
    #[error("native code of the module is larger than `plugin_compiled_bytes_max` ({}); {WAY_OUT}", units::exact_bytes(*.max))]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// The compiler broke over it: a fault of the compiler's, and the module's author may get around it.
    #[error("the compiler broke over the module ({0}); {WAY_OUT}")]
    Broken(String),
    /// The box did not let the compiler run: no fault of the module's.
    #[error(
        "this host gave the compiler too little CPU time to end within {wait_seconds} s; try again when it has less to do"
    )]
    Stalled {
        /// How long it was waited for.
        wait_seconds: u64,
    },
    /// The compiler was ended from outside: by an operator, or by a system that is short of memory.
    #[error("the compiler was ended from outside ({0}); try again when the host has more memory free")]
    Ended(String),
    /// The host has no process, thread or memory for it.
    #[error("the module cannot be compiled on this host now")]
    Host(#[source] io::Error),
    /// Nobody waits for it any more.
    #[error("compiling the module was cancelled")]
    Cancelled,
}

impl CompileError {
    /// Whether the module is not at fault, so that trying again may help.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(
            self,
            CompileError::Stalled { .. } | CompileError::Ended(_) | CompileError::Host(_) | CompileError::Cancelled
        )
    }
}
