//! What is not let in, each for a reason that is told.

use protocol::limits::{PLUGIN_FUNCTIONS_MAX, PLUGIN_LOCALS_MAX, PLUGIN_NESTING_MAX, TRANSFORM_CONFIG_BYTES_MAX};
use transform::{PluginError, PluginHost, PluginHostOptions, TransformError};

use crate::common::{constant_output, deploy_with, guest, guest_with_memory, host};

/// The text of the error, its causes included.
fn refusal(wasm: &[u8]) -> String {
    let error = host().load(wasm).unwrap_err();
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn refusal_of(text: &str) -> String {
    refusal(&wat::parse_str(text).unwrap())
}

/// A guest that would be fine, plus this.
fn fine_but(body: &str) -> Vec<u8> {
    guest(&format!("{} {body}", constant_output(&[])))
}

fn assert_has(text: &str, words: &str) {
    assert!(text.contains(words), "`{words}` is not in `{text}`");
}

#[test]
fn what_is_no_core_module() {
    assert_has(&refusal(b""), "not a WebAssembly module");
    assert_has(&refusal(b"#!/bin/sh\n"), "not a WebAssembly module");
    assert_has(&refusal(b"\x7fELF\x02\x01\x01\0\0\0\0\0"), "not a WebAssembly module");
    assert_has(&refusal(b"\0asm\x02\0\0\0"), "not a WebAssembly module");
    assert_has(&refusal_of("(component)"), "a WebAssembly component");
    assert_has(&refusal(&vec![0; (4 << 20) + 1]), "`plugin_bytes_max` (4194304)");
    // Cut anywhere, a module is refused and nothing worse; only its data and its debug names, at the end, can be missed.
    let (host, whole) = (host(), fine_but(""));
    let accepted = (0..whole.len()).filter(|length| host.load(&whole[..*length]).is_ok()).count();
    assert_eq!(accepted, 2);
}

#[test]
fn modules_without_the_exports() {
    assert_has(&refusal_of("(module)"), "exports no `memory`");
    assert_has(&refusal_of(r#"(module (memory (export "memory") 1))"#), "exports no `weir_abi_version`: () -> i32");
    let wrong = r#"(module (memory (export "memory") 1) (func (export "weir_abi_version")))"#;
    assert_has(&refusal_of(wrong), "exports `weir_abi_version`, but not as () -> i32");
    let process = r#"(func (export "weir_process") (param i32) (result i64) (i64.const 0))"#;
    assert_has(&refusal(&guest(process)), "exports `weir_process`, but not as (i32, i32) -> i64");
    assert_has(&refusal(&guest("")), "exports no `weir_process`");
    let init = r#"(func (export "weir_init") (param i64 i32) (result i32) (i32.const 0))"#;
    assert_has(&refusal(&fine_but(init)), "exports `weir_init`");
    assert_has(&refusal(&fine_but(r#"(global (export "weir_cursor") i64 (i64.const 0))"#)), "`weir_cursor`");
    let not_memory = r#"(module (func (export "memory")))"#;
    assert_has(&refusal_of(not_memory), "exports `memory`, but not as a memory");
}

#[test]
fn another_version_of_the_abi() {
    for version in [0, 2, -1] {
        let text = format!(
            r#"(module (memory (export "memory") 1)
                (func (export "weir_abi_version") (result i32) (i32.const {version}))
                (func (export "weir_alloc") (param i32) (result i32) (i32.const 0))
                (func (export "weir_process") (param i32 i32) (result i64) (i64.const 0)))"#
        );
        assert_has(&refusal_of(&text), &format!("speaks version {version} of the ABI, this broker version 1"));
    }
}

#[test]
fn imports_nobody_is_given() {
    for (module, name, kind) in [
        ("env", "system", "(func)"),
        ("weir", "state_get", "(func (param i32 i32 i32 i32) (result i32))"),
        ("weir", "log", "(memory 1)"),
        ("wasi_snapshot_preview1", "fd_everything", "(func)"),
        ("wasi_unstable", "fd_write", "(func (param i32 i32 i32 i32) (result i32))"),
        ("env", "memory", "(memory 1)"),
        ("env", "table", "(table 1 funcref)"),
        ("env", "global", "(global i32)"),
    ] {
        let text = refusal_of(&format!("(module (import \"{module}\" \"{name}\" {kind}))"));
        assert_has(&text, &format!("imports `{module}.{name}`"));
    }
    let wrong_type = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func))
        (memory (export "memory") 1)
        (func (export "weir_abi_version") (result i32) (i32.const 1))
        (func (export "weir_alloc") (param i32) (result i32) (i32.const 0))
        (func (export "weir_process") (param i32 i32) (result i64) (i64.const 0)))"#;
    assert_has(&refusal_of(wrong_type), "imports cannot be linked");
}

#[test]
fn proposals_that_are_off() {
    for (proposal, text) in [
        ("threads", r#"(module (memory 1 1 shared))"#),
        ("memory64", r#"(module (memory i64 1))"#),
        ("multi-memory", r#"(module (memory 1) (memory 1))"#),
        (
            "relaxed SIMD",
            r#"(module (func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))"#,
        ),
        ("GC", r#"(module (type (struct (field i32))))"#),
        ("externref", r#"(module (func (param externref)))"#),
        ("function references", r#"(module (type $f (func)) (func (param (ref $f))))"#),
        ("exceptions", r#"(module (tag))"#),
        ("tail calls", r#"(module (func $f (return_call $f)))"#),
        ("custom page sizes", r#"(module (memory 1 (pagesize 1)))"#),
        ("wide arithmetic", r#"(module (func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1))))"#),
        ("extended constants", r#"(module (global i32 (i32.add (i32.const 1) (i32.const 1))))"#),
    ] {
        let refused = refusal_of(text);
        assert!(refused.starts_with("not a valid module: "), "{proposal}: {refused}");
    }
}

#[test]
fn what_is_over_a_structural_limit() {
    let functions = "(func)".repeat(PLUGIN_FUNCTIONS_MAX as usize + 1);
    assert_has(&refusal(&fine_but(&functions)), "`plugin_functions_max` (20000)");
    let locals = format!("(func (local {}))", "i64 ".repeat(PLUGIN_LOCALS_MAX as usize + 1));
    assert_has(&refusal(&fine_but(&locals)), "`plugin_locals_max` (4096)");
    // Each function's own are few.
    let locals = format!("(func (local {}))", "i64 ".repeat(1_000)).repeat(201);
    assert_has(&refusal(&fine_but(&locals)), "`plugin_locals_sum_max` (200000)");
    let params = format!("(func (param {}))", "i64 ".repeat(129));
    assert_has(&refusal(&fine_but(&params)), "`plugin_type_values_max` (128)");
    let branches = format!("(func {})", "block end ".repeat(16_385));
    assert_has(&refusal(&fine_but(&branches)), "`plugin_branches_max` (16384)");
    let segment = format!("(elem func {})", "0 ".repeat(50_001));
    assert_has(&refusal(&fine_but(&segment.repeat(2))), "number of elements of all segments 100002");
    let data = "(data \"\")".repeat(65_537);
    assert_has(&refusal(&fine_but(&data)), "`plugin_data_segments_max` (65536)");
    let depth = PLUGIN_NESTING_MAX as usize + 1;
    let nested = format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth));
    assert_has(&refusal(&fine_but(&nested)), "`plugin_nesting_max` (1024)");
    let long = format!("(func {})", "i32.const 1 drop ".repeat(100_000));
    assert_has(&refusal(&fine_but(&long)), "`plugin_function_bytes_max` (262144)");
    assert_has(&refusal(&fine_but("(table 100001 funcref)")), "`plugin_table_elements_max` (100000)");
    assert_has(&refusal(&fine_but(&"(table 1 funcref)".repeat(5))), "`plugin_tables_max` (4)");
    let globals = "(global i32 (i32.const 0))".repeat(20_001);
    assert_has(&refusal(&fine_but(&globals)), "`plugin_items_max` (20000)");
    let memory = guest_with_memory("(memory (export \"memory\") 65536)", &constant_output(&[]));
    assert_has(&refusal(&memory), "`guest_memory_bytes_ceiling` (1073741824)");
}

#[test]
fn settings_that_cannot_be() {
    let host = host();
    let plain = fine_but("");
    let refused = |change: &dyn Fn(&mut protocol::TransformSpec)| deploy_with(&host, &plain, change).unwrap_err();
    assert_has(&refused(&|spec| spec.config = "{".into()).to_string(), "not JSON");
    assert_has(&refused(&|spec| spec.config = "{\"a\":1}".into()).to_string(), "takes no configuration");
    let long = || format!("\"{}\"", "a".repeat(TRANSFORM_CONFIG_BYTES_MAX));
    assert_has(&refused(&|spec| spec.config = long()).to_string(), "length of the configuration of 65538");
    assert_has(&refused(&|spec| spec.limits.memory_bytes = 1 << 40).to_string(), "memory_bytes of 1099511627776");
    assert_has(&refused(&|spec| spec.limits.deadline_ms = 0).to_string(), "`deadline_ms` is 0");
    assert_has(&refused(&|spec| spec.limits.output_bytes = 1 << 40).to_string(), "output_bytes of");
    assert!(matches!(
        refused(&|spec| spec.plugin_hash = protocol::PluginHash([0; 32])),
        TransformError::PluginDiffers { .. }
    ));
}

#[test]
fn a_configuration_the_plugin_does_not_take() {
    let body = r#"(data (i32.const 16) "`pointer` is missing")
        (func (export "weir_init") (param i32 i32) (result i32)
            (call $log (i32.const 1) (i32.const 16) (i32.const 20)) (i32.const 1))"#;
    let error = deploy_with(&host(), &fine_but(body), |_| {}).unwrap_err();
    let TransformError::ConfigRefused { text } = error else { panic!("{error:?}") };
    assert_eq!(text, "`pointer` is missing");
}

#[test]
fn what_a_plugin_says_of_itself_is_kept() {
    let describes = |text: &str| {
        let body = format!(
            r#"(data (i32.const 16) "{}")
            (func (export "weir_describe") (result i64)
                (i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const {})))"#,
            text.replace('"', "\\\""),
            text.len()
        );
        host().load(&fine_but(&body)).map(|plugin| plugin.describe().to_owned())
    };
    assert_eq!(describes(r#"{"version":"1.2"}"#).unwrap(), r#"{"version":"1.2"}"#);
    assert!(matches!(describes("[]"), Err(PluginError::Describe)));
    assert!(matches!(describes("{"), Err(PluginError::Describe)));
}

#[test]
fn a_compiled_plugin_is_used_only_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = PluginHostOptions { instances_max: 4, ..PluginHostOptions::new(dir.path()) };
    let wasm = fine_but("");
    let load = || PluginHost::new(&options).unwrap().load(&wasm).unwrap().hash();
    let hash = load();
    let compiled = dir.path().join("compiled");
    let file = || {
        let of_plugin = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".compiled");
        std::fs::read_dir(&compiled).unwrap().map(|entry| entry.unwrap().path()).find(of_plugin)
    };
    let path = file().unwrap();
    let written = std::fs::read(&path).unwrap();

    // As it is, it is used: not written again.
    let stamp = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let before = stamp();
    assert_eq!(load(), hash);
    assert_eq!(stamp(), before);

    // Changed, cut or emptied, it is compiled anew and mended.
    for change in [
        |bytes: &mut Vec<u8>| bytes[0] ^= 1,
        |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1,
        |bytes: &mut Vec<u8>| bytes.truncate(20),
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        let mut bytes = written.clone();
        change(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(load(), hash);
        assert_ne!(std::fs::read(&path).unwrap(), bytes);
    }
    // Under another key, nothing of the old is used; what is broken of the key itself is made anew.
    std::fs::write(compiled.join("key"), b"short").unwrap();
    assert_eq!(load(), hash);
    assert_eq!(std::fs::read(compiled.join("key")).unwrap().len(), 32);

    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&compiled).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(compiled.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    PluginHost::new(&options).unwrap().forget(hash);
    assert!(file().is_none());
}
