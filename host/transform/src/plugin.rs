//! An uploaded module that was checked and compiled, and every reason to refuse one.
//!
//! Owns the way from bytes to [`Plugin`]: structural checks, compilation (or the compiled cache), and one trial
//! instance that must speak our version of the ABI. Knows nothing of topics or configuration.

use std::{collections::BTreeMap, sync::Arc};

use abi::export;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{PluginHash, TransformLimits};
use sha2::{Digest as _, Sha256};
use wasmtime::{InstancePre, Module, ModuleExport};

use crate::{
    Cancel, CompileError, Fault, PluginHost,
    engines::Stack,
    fault::CallError,
    guest::{self, Guest},
    instance::{PluginInstance, Settings},
    validate,
};

/// A module that passed every check, compiled and ready to be instantiated. A clone shares it.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    hash: PluginHash,
    wasm: Bytes,
    describe: String,
    code: Code,
    /// Whether it was made of the compiled form that the host keeps.
    is_kept: bool,
    /// The same for other sizes of stack, as transforms ask for them.
    others: Mutex<BTreeMap<Stack, Code>>,
}

/// Compiled code, linked with the host functions, and where its exports are.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) linked: InstancePre<Guest>,
    pub(crate) exports: Exports,
}

/// The exports of the ABI, found once: looking one up by index is free of string hashing.
#[derive(Clone)]
pub(crate) struct Exports {
    pub(crate) memory: ModuleExport,
    pub(crate) abi_version: ModuleExport,
    pub(crate) alloc: ModuleExport,
    pub(crate) process: ModuleExport,
    pub(crate) init: Option<ModuleExport>,
    pub(crate) describe: Option<ModuleExport>,
    pub(crate) cursor: Option<ModuleExport>,
    pub(crate) initialize: Option<ModuleExport>,
}

impl Plugin {
    /// Checks, compiles and tries a module; see [`PluginHost::examine`].
    pub(crate) fn examine(host: &PluginHost, wasm: &[u8], cancel: &Cancel) -> Result<Plugin, PluginError> {
        // Too large is too large to be hashed, too.
        validate::check_size(wasm)?;
        let hash = PluginHash(Sha256::digest(wasm).into());
        let kept = host.kept(hash);
        let is_kept = kept.is_some();
        let module = match kept {
            // Only of a module that passed the checks is there a compiled form of this broker's.
            Some(module) => module,
            None => {
                validate::check(wasm)?;
                host.compile(wasm, cancel)?
            }
        };
        let exports = Exports::of(&module).ok_or(PluginError::NotWasm)?;
        let linked = host.link(&module, Stack::DEFAULT).map_err(PluginError::Link)?;
        let code = Code { linked, exports };
        let describe = try_out(host, &code)?;
        let (wasm, others) = (Bytes::copy_from_slice(wasm), Mutex::default());
        Ok(Plugin { inner: Arc::new(Inner { hash, wasm, describe, code, is_kept, others }) })
    }

    /// SHA-256 of the module.
    #[must_use]
    pub fn hash(&self) -> PluginHash {
        self.inner.hash
    }

    /// What the module says of itself: JSON with the keys of `abi::describe`, or empty.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.inner.describe
    }

    /// The module as it was uploaded.
    #[must_use]
    pub fn wasm_bytes(&self) -> &Bytes {
        &self.inner.wasm
    }

    /// Whether it takes a configuration.
    pub(crate) fn takes_config(&self) -> bool {
        self.inner.code.exports.init.is_some()
    }

    /// Its code for a stack of this size.
    pub(crate) fn code(&self, host: &PluginHost, stack: Stack) -> wasmtime::Result<Code> {
        if stack == Stack::DEFAULT {
            return Ok(self.inner.code.clone());
        }
        let mut others = self.inner.others.lock();
        if let Some(code) = others.get(&stack) {
            return Ok(code.clone());
        }
        let linked = host.link(self.inner.code.linked.module(), stack)?;
        let exports = Exports::of(linked.module()).expect("the same module exports the same");
        let code = Code { linked, exports };
        others.insert(stack, code.clone());
        Ok(code)
    }

    pub(crate) fn module(&self) -> &Module {
        self.inner.code.linked.module()
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.inner.is_kept
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("hash", &self.inner.hash).finish_non_exhaustive()
    }
}

impl Exports {
    /// `None` when one that must be there is not, which the check before compiling has excluded.
    fn of(module: &Module) -> Option<Exports> {
        let find = |name| module.get_export_index(name);
        Some(Exports {
            memory: find(export::MEMORY)?,
            abi_version: find(export::ABI_VERSION)?,
            alloc: find(export::ALLOC)?,
            process: find(export::PROCESS)?,
            init: find(export::INIT),
            describe: find(export::DESCRIBE),
            cursor: find(export::CURSOR),
            initialize: find(export::INITIALIZE),
        })
    }
}

/// Starts one instance without configuration, which checks the version of the ABI, and asks it to describe itself.
fn try_out(host: &PluginHost, code: &Code) -> Result<String, PluginError> {
    let settings =
        Settings { name: "(upload)", seed: 0, limits: TransformLimits::default(), config: None, usage: None };
    let mut instance = PluginInstance::start(host, code, &settings).map_err(PluginError::of_start)?;
    let text = instance.describe(host).map_err(PluginError::of_start)?;
    if !text.is_empty() && !serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|value| value.is_object()) {
        return Err(PluginError::Describe);
    }
    Ok(text)
}

/// Why a module is refused.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Not the header of a core WebAssembly module (precompiled code is not accepted either).
    #[error("not a WebAssembly module")]
    NotWasm,
    /// A component.
    #[error("a WebAssembly component, not a core module: build for `wasm32-unknown-unknown` or `wasm32-wasip1`")]
    Component,
    /// It breaks WebAssembly's own rules, or uses a proposal that is off.
    #[error("not a valid module")]
    Invalid(#[source] InvalidModule),
    /// Over a structural limit.
    #[error("{what} {value} is over `{limit}` ({max})")]
    OverLimit {
        /// What was counted or measured.
        what: &'static str,
        /// What it has.
        value: u64,
        /// The limit's name.
        limit: &'static str,
        /// What is allowed.
        max: u64,
    },
    /// An import that no guest is given.
    #[error("imports `{module}.{name}`, which is neither `weir.log` nor a function of WASI preview 1")]
    ImportRefused {
        /// Its module.
        module: String,
        /// Its name.
        name: String,
    },
    /// An import of the wrong type.
    #[error("imports cannot be linked")]
    Link(#[source] wasmtime::Error),
    /// An export the ABI needs.
    #[error("exports no `{name}`: {expected}")]
    ExportMissing {
        /// Its name.
        name: &'static str,
        /// Its type.
        expected: &'static str,
    },
    /// An export of the wrong type.
    #[error("exports `{name}`, but not as {expected}")]
    ExportType {
        /// Its name.
        name: &'static str,
        /// The type it should have.
        expected: &'static str,
    },
    /// Built for another version of the ABI.
    #[error("speaks version {found} of the ABI, this broker version {}", abi::ABI_VERSION)]
    AbiVersion {
        /// What it says.
        found: i32,
    },
    /// What it says of itself is not a JSON object.
    #[error("`weir_describe` returned something other than a JSON object")]
    Describe,
    /// It was not compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A trial instance did not come up.
    #[error("a trial instance failed")]
    Start(#[source] Fault),
    /// The host had no room for a trial instance.
    #[error("a trial instance could not be made: {0}")]
    Host(String),
}

/// The rule of WebAssembly's own that a module breaks, and where. It may quote the module, so it is made fit for logs
/// and terminals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidModule(String);

impl From<wasmparser::BinaryReaderError> for PluginError {
    fn from(error: wasmparser::BinaryReaderError) -> PluginError {
        PluginError::Invalid(InvalidModule(guest::printable(error.to_string().as_bytes())))
    }
}

impl PluginError {
    /// Whether the module is not at fault, so that the same one may be taken later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            PluginError::Compile(error) => error.is_retriable(),
            PluginError::Host(_) => true,
            _ => false,
        }
    }

    fn of_start(error: StartError) -> PluginError {
        match error {
            StartError::AbiVersion { found } => PluginError::AbiVersion { found },
            StartError::Refused(text) => PluginError::Host(text),
            StartError::Call(CallError::Fault(fault)) => PluginError::Start(fault),
            StartError::Call(CallError::Host(text)) => PluginError::Host(text),
        }
    }
}

/// Why an instance did not come up.
#[derive(Debug)]
pub(crate) enum StartError {
    AbiVersion {
        found: i32,
    },
    /// `weir_init` did not take the configuration.
    Refused(String),
    Call(CallError),
}

impl From<CallError> for StartError {
    fn from(error: CallError) -> StartError {
        StartError::Call(error)
    }
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> StartError {
        StartError::Call(fault.into())
    }
}
