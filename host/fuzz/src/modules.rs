//! Modules that are valid by construction and mean nothing, uploaded and run: whatever a guest does, the host answers with
//! a typed outcome, keeps its books, and has its memory back.
//!
//! The functions of a module are chance's own, but for `weir_abi_version` and, half the time, `weir_alloc`: with those
//! left to chance nothing would ever be run.

use std::sync::{Arc, OnceLock};

use arbitrary::Unstructured;
use protocol::{
    BatchBuilder, Compression, Offset, Record, RecordBatch, TopicName, TransformLimits, TransformSpec,
    limits::{PLUGIN_TABLE_ELEMENTS_MAX, RECORD_BYTES_MAX},
};
use transform::{Pipeline, PipelineInput, PluginError, PluginHost, PluginHostOptions, Transform, Worker};
use wasm_smith::{Config, Module};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use crate::{allocations::bounded, targets::Seeds};

/// Instances that may exist at once: were one left behind by any input, the next ones could not start.
const INSTANCES_MAX: u32 = 2;

/// What compiling and running a small module may hold of the host's own memory.
const HOST_BYTES_MAX: usize = 256 << 20;

/// CPU time of a call, in milliseconds: an endless loop is met often.
const DEADLINE_MS: u32 = 5;

/// Any bytes as the choices of which a module is made.
pub fn module_run(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    let Some(wasm) = module(choices, rest) else { return };
    bounded(HOST_BYTES_MAX, || upload_and_run(&wasm));
}

/// Whether the module got as far as being run.
fn upload_and_run(wasm: &[u8]) -> bool {
    let host = host();
    let plugin = match host.load(wasm) {
        Ok(plugin) => plugin,
        Err(PluginError::Host(text)) => panic!("an instance was left behind, or the host is broken: {text}"),
        Err(error @ PluginError::Compile(_)) => panic!("what passes the checks is not compiled: {error}"),
        Err(error) => {
            assert!(error.to_string().len() > 10, "a refusal says nothing: {error}");
            return false;
        }
    };
    let limits = TransformLimits { deadline_ms: DEADLINE_MS, memory_bytes: 4 << 20, ..TransformLimits::default() };
    let name = "fuzzed";
    let spec = TransformSpec::new(name.parse().expect("a name"), name.parse().expect("a name"), plugin.hash());
    let spec = TransformSpec { limits, ..spec };
    let Ok(transform) = Transform::new(host, &plugin, spec) else { return false };
    let pipeline = Pipeline::new(vec![Arc::new(transform)]);
    let batch = batch();
    let input = PipelineInput {
        topic: &TopicName::new("t").expect("a name"),
        partition: 0,
        base_offset: Offset(7),
        batch: &batch,
        max_record_bytes: RECORD_BYTES_MAX as u32,
        keyed_topics: &[],
    };
    let worker = Worker::new(host);
    for _again_with_what_it_left_in_memory in 0..2 {
        // A stalled host says so; any other end is an output whose books balance.
        if let Ok(output) = pipeline.run(&worker, &input) {
            assert!(output.books.balance(), "{:?}", output.books);
            assert_eq!(output.books.records_in, u64::from(batch.header().record_count));
        }
    }
    true
}

/// One engine for all inputs: what one of them breaks, the next one meets.
fn host() -> &'static PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    HOST.get_or_init(|| {
        let options = PluginHostOptions { instances_max: INSTANCES_MAX, ..PluginHostOptions::without_cache() };
        PluginHost::new(&options).expect("the host has room for a plugin engine")
    })
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in ["a", "{\"b\":1}", ""] {
        builder.append(&Record::unkeyed(value, 1_000)).expect("a few small records fit a batch");
    }
    builder.finish(Offset::ZERO).expect("a few small records fit a batch")
}

/// A module with the exports of the ABI, if these bytes make one.
fn module(choices: u8, data: &[u8]) -> Option<Vec<u8>> {
    let is = |bit: u8| choices >> bit & 1 == 1;
    let config = Config {
        exports: Some(exports()),
        available_imports: is(0).then(imports),
        allow_start_export: is(1),
        simd_enabled: is(2),
        // With them come types that no guest is given; one module in two is for finding that these are refused.
        reference_types_enabled: is(3),
        disallow_traps: is(4),
        max_imports: 4,
        max_instructions: 400,
        max_memories: 1,
        max_memory32_bytes: 2 << 20,
        max_table_elements: PLUGIN_TABLE_ELEMENTS_MAX,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        extended_const_enabled: false,
        ..Config::default()
    };
    let wasm = Module::new(config, &mut Unstructured::new(data)).ok()?.to_bytes();
    // No locals; `i32.const 1`, the version, or `i32.const 1024`, a buffer.
    let wasm = with_body(&wasm, abi::export::ABI_VERSION, &[0, 0x41, 1, 0x0b])?;
    if is(5) { with_body(&wasm, abi::export::ALLOC, &[0, 0x41, 0x80, 8, 0x0b]) } else { Some(wasm) }
}

/// The module with another body for a function that it exports.
fn with_body(wasm: &[u8], export: &str, body: &[u8]) -> Option<Vec<u8>> {
    let (mut imported, mut function, mut section, mut bodies) = (0, None, 0..0, Vec::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(imports) => {
                let functions = imports.into_imports().flatten().filter(|import| matches!(import.ty, TypeRef::Func(_)));
                imported = functions.count();
            }
            Payload::ExportSection(exports) => {
                let found = exports.into_iter().flatten().find(|found| found.name == export);
                function = found.filter(|found| found.kind == ExternalKind::Func).map(|found| found.index as usize);
            }
            Payload::CodeSectionStart { range, .. } => section = range,
            Payload::CodeSectionEntry(body) => bodies.push(body.range()),
            _ => {}
        }
    }
    let nth = function?.checked_sub(imported)?;
    let mut code = leb128(bodies.len());
    for (number, range) in bodies.into_iter().enumerate() {
        let body = if number == nth { body } else { &wasm[range] };
        code.extend(leb128(body.len()));
        code.extend(body);
    }
    // Before the section's contents come its number and its length; that is found by its own length.
    let head = (1..=5).find(|bytes| wasm[..section.start].ends_with(&leb128_of(section.len(), *bytes)))?;
    Some([&wasm[..section.start - head], &leb128(code.len()), &code, &wasm[section.end..]].concat())
}

fn leb128(number: usize) -> Vec<u8> {
    let bytes = (1..).find(|bytes| number >> (7 * bytes) == 0).unwrap_or(1);
    leb128_of(number, bytes)
}

fn leb128_of(number: usize, bytes: usize) -> Vec<u8> {
    let byte = |nth: usize| (number >> (7 * nth)) as u8 & 0x7f | if nth + 1 < bytes { 0x80 } else { 0 };
    (0..bytes).map(byte).collect()
}

/// A module that exports what the ABI names: `memory`, `weir_abi_version`, `weir_alloc`, `weir_process`, `weir_init` and
/// `weir_describe`, and the cursor.
fn exports() -> Vec<u8> {
    const TYPES: &[u8] =
        b"\x05\x60\x00\x01\x7f\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7f\x01\x7e\x60\x02\x7f\x7f\x01\x7f\x60\x00\x01\x7e";
    const CODE: &[u8] = b"\x05\x03\x00\x00\x0b\x03\x00\x00\x0b\x03\x00\x00\x0b\x03\x00\x00\x0b\x03\x00\x00\x0b";
    use abi::export as of;
    let names = [
        (of::MEMORY, [2, 0]),
        (of::ABI_VERSION, [0, 0]),
        (of::ALLOC, [0, 1]),
        (of::PROCESS, [0, 2]),
        (of::INIT, [0, 3]),
        (of::DESCRIBE, [0, 4]),
        (of::CURSOR, [3, 0]),
    ];
    let exports: Vec<u8> =
        names.iter().flat_map(|(name, what)| [&[name.len() as u8][..], name.as_bytes(), what].concat()).collect();
    let sections: [(u8, &[u8]); 6] = [
        (1, TYPES),
        (3, b"\x05\x00\x01\x02\x03\x04"),
        (5, b"\x01\x01\x01\x10"),
        (6, b"\x01\x7f\x01\x41\x00\x0b"),
        (7, &[&[names.len() as u8][..], &exports].concat()),
        (10, CODE),
    ];
    of_sections(&sections)
}

/// A module that imports what a guest may.
fn imports() -> Vec<u8> {
    const TYPES: &[u8] = b"\x04\x60\x03\x7f\x7f\x7f\x00\x60\x03\x7f\x7e\x7f\x01\x7f\x60\x02\x7f\x7f\x01\x7f\x60\x04\x7f\x7f\x7f\x7f\x01\x7f";
    let wasi = "wasi_snapshot_preview1";
    let names = [("weir", "log", 0), (wasi, "clock_time_get", 1), (wasi, "random_get", 2), (wasi, "fd_write", 3)];
    let mut section = vec![names.len() as u8];
    for (module, name, of_type) in names {
        for text in [module, name] {
            section.push(text.len() as u8);
            section.extend(text.as_bytes());
        }
        section.extend([0, of_type]);
    }
    of_sections(&[(1, TYPES), (2, &section)])
}

fn of_sections(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    for (number, bytes) in sections {
        wasm.push(*number);
        wasm.extend(leb128(bytes.len()));
        wasm.extend(*bytes);
    }
    wasm
}

/// Noise, for each set of choices that matters.
pub(crate) fn seeds() -> Seeds {
    let noise = |choices: u8, bytes: usize, from: u32| {
        let mut state = from;
        let byte = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        [choices].into_iter().chain(byte.take(bytes)).collect()
    };
    vec![
        ("plain", noise(0b10_0000, 600, 1)),
        ("imports", noise(0b10_0001, 900, 2)),
        ("start", noise(0b10_0011, 900, 3)),
        ("simd", noise(0b11_0100, 1_200, 4)),
        ("references", noise(0b10_1101, 900, 5)),
        ("own-alloc", noise(0b00_0001, 700, 6)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_what_chance_makes_is_run() {
        let mut run = 0;
        for from in 0..40_u32 {
            let mut state = from;
            let mut byte = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let data: Vec<u8> = (0..800).map(|_| byte()).collect();
            run += u32::from(module(0b11_0001, &data).is_some_and(|wasm| upload_and_run(&wasm)));
        }
        assert!(run >= 10, "{run} of 40 were run");
    }

    #[test]
    fn only_the_body_is_replaced() {
        let wasm = exports();
        let changed = with_body(&wasm, "weir_alloc", &[0, 0x41, 0x80, 8, 0x0b]).unwrap();
        assert_eq!(changed.len(), wasm.len() + 2);
        assert_eq!(with_body(&changed, "weir_alloc", &[0, 0, 0x0b]).unwrap(), wasm);
        assert!(with_body(&wasm, "weir_tick", &[0, 0x0b]).is_none());
    }
}
