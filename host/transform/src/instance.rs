//! One running copy of a plugin, with its own memory.
//!
//! Owns the calls of the ABI: starting an instance, handing it one batch, reading back the span it answers with. Never
//! believes a number that comes out of the guest before it is checked, and never judges what the output says.
//!
//! Invariants
//! - An instance belongs to one transform, and to one batch at a time.
//! - After a fault it is never called again: its owner throws it away.
//!
//! Start at [`PluginInstance::start`] and [`PluginInstance::process`].

use abi::{HostCode, Span, input::InputHeader};
use bytes::Bytes;
use protocol::{TransformLimits, limits::PLUGIN_DESCRIBE_BYTES_MAX};
use wasmtime::{Extern, Memory, ModuleExport, Mutability, Store, TypedFunc, UpdateDeadline, WasmParams, WasmResults};

use crate::{
    Fault, PluginHost,
    deadline::Allowance,
    fault::{self, CallError},
    guest::{self, Cursor, Guest},
    plugin::{Code, StartError},
    slots::Turn,
    usage::Usage,
};

/// An instance may keep this much memory between calls (or twice what it had after starting, if that is more); one
/// that has grown beyond is replaced by a fresh one.
const KEPT_BYTES: usize = 16 << 20;

/// What an instance is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// What its log lines are marked with.
    pub(crate) name: &'a str,
    /// What its randomness begins from.
    pub(crate) seed: u64,
    pub(crate) limits: TransformLimits,
    /// For `weir_init`; `None` starts it without, as at upload.
    pub(crate) config: Option<&'a str>,
    /// Where what it uses is entered; `None` at upload.
    pub(crate) usage: Option<&'a Usage>,
}

/// See the module.
pub(crate) struct PluginInstance {
    store: Store<Guest>,
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    process: TypedFunc<(i32, i32), i64>,
    describe: Option<TypedFunc<(), i64>>,
    limits: TransformLimits,
    /// Memory after starting.
    started_bytes: usize,
}

/// One batch, or a piece of one, for a guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) header: InputHeader<'a>,
    pub(crate) section: &'a Bytes,
    /// Whether the record that `weir_cursor` names is believed to be in hand.
    pub(crate) believes_cursor: bool,
}

/// What a call came back with: spans of the guest's memory, valid until the next call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) memory: &'a [u8],
    pub(crate) output: &'a [u8],
}

/// A call that failed, and the record the guest had in hand, if it said so.
#[derive(Debug, Clone)]
pub(crate) struct ProcessError {
    pub(crate) error: CallError,
    pub(crate) cursor: Option<u32>,
}

impl PluginInstance {
    /// Starts an instance: `start` and `_initialize`, the ABI's version, then the configuration.
    pub(crate) fn start(host: &PluginHost, code: &Code, settings: &Settings<'_>) -> Result<PluginInstance, StartError> {
        let limits = settings.limits;
        let mut guest = Guest::new(settings.name, limits.memory_bytes, host.ticks(), settings.usage);
        guest.place.seed = settings.seed;
        let mut store = Store::new(code.linked.module().engine(), guest);
        store.limiter(|guest| guest);
        store.epoch_deadline_callback(|context| {
            guest::tick(context)?;
            Ok(UpdateDeadline::Continue(1))
        });
        arm(&mut store, of_call(&limits));
        let instance = {
            let _running = host.running();
            code.linked.instantiate(&mut store)
        };
        let instance = instance.map_err(|error| of_failed_call(&mut store, &error))?;

        let exports = &code.exports;
        let mut find = |export: &ModuleExport| instance.get_module_export(&mut store, export);
        let memory = find(&exports.memory).and_then(Extern::into_memory);
        let cursor = exports.cursor.as_ref().and_then(&mut find).and_then(Extern::into_global);
        let memory = memory.ok_or_else(|| missing(abi::export::MEMORY))?;
        store.data_mut().memory = Some(memory);
        store.data_mut().cursor = cursor.map_or(Cursor::None, |global| match global.ty(&store).mutability() {
            Mutability::Var => Cursor::Global(global),
            Mutability::Const => match global.get(&mut store) {
                wasmtime::Val::I32(address) => Cursor::Address(address.cast_unsigned()),
                _ => Cursor::None,
            },
        });
        let alloc = typed(&mut store, &instance, &exports.alloc)?;
        let process = typed(&mut store, &instance, &exports.process)?;
        let abi_version = typed::<(), i32>(&mut store, &instance, &exports.abi_version)?;
        let describe = optional(&mut store, &instance, exports.describe.as_ref())?;
        let initialize = optional::<(), ()>(&mut store, &instance, exports.initialize.as_ref())?;
        let init = optional(&mut store, &instance, exports.init.as_ref())?;

        let mut started = PluginInstance { store, memory, alloc, process, describe, limits, started_bytes: 0 };
        if let Some(initialize) = initialize {
            started.call(host, &initialize, ())?;
        }
        match started.call(host, &abi_version, ())? {
            abi::ABI_VERSION => {}
            found => return Err(StartError::AbiVersion { found }),
        }
        if let (Some(init), Some(config)) = (init, settings.config) {
            started.configure(host, &init, config)?;
        }
        started.started_bytes = started.memory.data_size(&started.store);
        Ok(started)
    }

    fn configure(
        &mut self,
        host: &PluginHost,
        init: &TypedFunc<(i32, i32), i32>,
        config: &str,
    ) -> Result<(), StartError> {
        arm(&mut self.store, of_call(&self.limits));
        let buffer = self.allocate(host, config.len())?;
        let to = self.buffer(buffer, config.len())?;
        to.copy_from_slice(config.as_bytes());
        let taken = self.run(host, init, (buffer, config.len().cast_signed() as i32));
        let said = self.store.data_mut().log.end_call();
        match taken? {
            0 => Ok(()),
            _ => Err(StartError::Refused(said.unwrap_or_else(|| "the plugin gave no reason".into()))),
        }
    }

    /// What the plugin says of itself; empty when it says nothing.
    pub(crate) fn describe(&mut self, host: &PluginHost) -> Result<String, StartError> {
        let Some(describe) = self.describe.clone() else { return Ok(String::new()) };
        let packed = self.call(host, &describe, ())?;
        let text = Span::unpack(packed).and_then(|span| span.of(self.memory.data(&self.store)));
        let text = text.ok_or_else(|| bad("`weir_describe` returned a span outside of the memory"))?;
        if text.len() > PLUGIN_DESCRIBE_BYTES_MAX {
            let bytes = text.len();
            let text =
                format!("description of {bytes} is over `plugin_describe_bytes_max` ({PLUGIN_DESCRIBE_BYTES_MAX})");
            return Err(bad(&text).into());
        }
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Hands over one batch.
    pub(crate) fn process(&mut self, host: &PluginHost, input: Input<'_>) -> Result<Answer<'_>, ProcessError> {
        let header = &input.header;
        let place = &mut self.store.data_mut().place;
        let base_offset = header.base_offset.cast_unsigned();
        place.move_to(header.partition, base_offset, header.base_timestamp, input.section.clone());
        arm(&mut self.store, of_batch(&self.limits, &input));
        let answered = self.exchange(host, input);
        self.store.data_mut().place.leave();
        let said = match self.store.data().log.is_silent() {
            true => None,
            false => self.store.data_mut().log.end_call(),
        };
        match answered {
            Ok(span) => self.answer(span).map_err(|fault| ProcessError { error: fault.into(), cursor: None }),
            Err(error) => {
                let cursor = self.store.data().cursor.read(&mut self.store);
                let error = match error {
                    CallError::Fault(fault) => CallError::Fault(fault.said(said)),
                    host @ CallError::Host(_) => host,
                };
                Err(ProcessError { error, cursor })
            }
        }
    }

    /// Has it run in this turn, which it gives up and takes again at ticks.
    pub(crate) fn lend(&mut self, turn: Turn) {
        self.store.data_mut().turn = Some(turn);
    }

    /// Takes the turn back, when it has run.
    pub(crate) fn take_back(&mut self) -> Option<Turn> {
        self.store.data_mut().turn.take()
    }

    /// Whether it may serve the next batch, or has grown too much for that.
    pub(crate) fn is_fit(&self) -> bool {
        self.memory.data_size(&self.store) <= KEPT_BYTES.max(self.started_bytes * 2)
    }

    fn exchange(&mut self, host: &PluginHost, input: Input<'_>) -> Result<Span, CallError> {
        let header_len = InputHeader::encoded_len(input.header.topic.len());
        let length = header_len + input.section.len();
        let _running = host.running();
        let buffer = self.allocate_running(length)?;
        let to = self.buffer(buffer, length)?;
        let (header, section) = to.split_at_mut(header_len);
        // A topic's name is far shorter than what the header can say.
        input.header.encode(header).ok_or_else(|| bad("input header does not fit"))?;
        section.copy_from_slice(input.section);
        let packed = run_running(&mut self.store, &self.process, (buffer, length.cast_signed() as i32))?;
        Span::unpack(packed).ok_or_else(|| Fault::new(HostCode::BatchFailed, "`weir_process` failed").into())
    }

    fn answer(&self, span: Span) -> Result<Answer<'_>, Fault> {
        if u64::from(span.length) > self.limits.output_bytes {
            let text = format!("output of {} is over `output_bytes` ({})", span.length, self.limits.output_bytes);
            return Err(bad(&text));
        }
        let memory = self.memory.data(&self.store);
        let output = span.of(memory).ok_or_else(|| bad("output lies outside of the memory"))?;
        Ok(Answer { memory, output })
    }

    /// A buffer of the guest's for `length` bytes.
    fn allocate(&mut self, host: &PluginHost, length: usize) -> Result<i32, CallError> {
        let _running = host.running();
        self.allocate_running(length)
    }

    fn allocate_running(&mut self, length: usize) -> Result<i32, CallError> {
        let refused = || Fault::new(HostCode::AllocRefused, format!("`weir_alloc` refused an input of {length} bytes"));
        let wanted = i32::try_from(length).map_err(|_| refused())?;
        match run_running(&mut self.store, &self.alloc, wanted)? {
            0 => Err(refused().into()),
            buffer => Ok(buffer),
        }
    }

    /// The bytes of a buffer, which the guest may have named anywhere.
    fn buffer(&mut self, address: i32, length: usize) -> Result<&mut [u8], Fault> {
        let start = address.cast_unsigned() as usize;
        let memory = self.memory.data_mut(&mut self.store);
        let end = start.checked_add(length).filter(|end| *end <= memory.len());
        let end = end.ok_or_else(|| bad("`weir_alloc` returned a buffer outside of the memory"))?;
        Ok(&mut memory[start..end])
    }

    /// One call with a deadline and a log of its own.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        host: &PluginHost,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, CallError> {
        arm(&mut self.store, of_call(&self.limits));
        let result = self.run(host, function, params);
        let said = self.store.data_mut().log.end_call();
        result.map_err(|error| match error {
            CallError::Fault(fault) => CallError::Fault(fault.said(said)),
            host @ CallError::Host(_) => host,
        })
    }

    fn run<P: WasmParams, R: WasmResults>(
        &mut self,
        host: &PluginHost,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, CallError> {
        let _running = host.running();
        run_running(&mut self.store, function, params)
    }
}

/// One call, while deadlines tick. It takes the parts of an instance that it needs: a clone of a function costs more than
/// the call.
fn run_running<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    function: &TypedFunc<P, R>,
    params: P,
) -> Result<R, CallError> {
    function.call(store, params).map_err(|error| fault::of_call(&error))
}

/// Gives the next call its deadline and its share of the log.
fn arm(store: &mut Store<Guest>, allowance: Allowance) {
    store.data_mut().arm(allowance);
    store.set_epoch_deadline(1);
}

/// What a call without records may use.
fn of_call(limits: &TransformLimits) -> Allowance {
    Allowance { call_ms: limits.deadline_ms, record_ms: None }
}

/// What a call with records may use: one alone has its own deadline, whether or not the guest says that it is in hand.
fn of_batch(limits: &TransformLimits, input: &Input<'_>) -> Allowance {
    match input.header.record_count {
        1 => Allowance { call_ms: limits.deadline_ms.min(limits.record_deadline_ms), record_ms: None },
        _ => Allowance {
            call_ms: limits.deadline_ms,
            record_ms: input.believes_cursor.then_some(limits.record_deadline_ms),
        },
    }
}

fn bad(text: &str) -> Fault {
    Fault::new(HostCode::BadOutput, text)
}

fn missing(name: &str) -> CallError {
    // The check before compiling has made sure of it; compiled code from the cache is authenticated.
    Fault::new(HostCode::Trap, format!("exports no `{name}`")).into()
}

fn of_failed_call(store: &mut Store<Guest>, error: &wasmtime::Error) -> CallError {
    let said = store.data_mut().log.end_call();
    match fault::of_call(error) {
        CallError::Fault(fault) => CallError::Fault(fault.said(said)),
        host @ CallError::Host(_) => host,
    }
}

fn optional<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    instance: &wasmtime::Instance,
    export: Option<&ModuleExport>,
) -> Result<Option<TypedFunc<P, R>>, CallError> {
    export.map(|export| typed(store, instance, export)).transpose()
}

/// A function of a known type.
fn typed<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    instance: &wasmtime::Instance,
    export: &ModuleExport,
) -> Result<TypedFunc<P, R>, CallError> {
    let function = instance.get_module_export(&mut *store, export).and_then(Extern::into_func);
    function.and_then(|function| function.typed(&store).ok()).ok_or_else(|| missing("function"))
}
