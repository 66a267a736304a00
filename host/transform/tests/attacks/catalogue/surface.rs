//! Attacks on the surface: imports nobody is given, proposals that are off, exports of the wrong type, bytes that are
//! no module or two readings of one, and native code in a module's place.

use abi::HostCode::Trap;

use super::{
    Attack, Class,
    Refusal::{
        AbiVersion, Component, Describe, ExportMissing, ExportType, ImportRefused, Invalid, Link, NotWasm, OverLimit,
        Start,
    },
    build::{FOR_EVER, Guest, module, only, sections},
};

pub(super) fn attacks() -> Vec<Attack> {
    [imports(), proposals(), exports(), encodings(), native_code()].into_iter().flatten().collect()
}

fn refused(name: &'static str, wasm: Vec<u8>, refusal: super::Refusal, words: &'static str) -> Attack {
    Attack::refused(name, Class::Surface, wasm, refusal, words)
}

fn imports() -> Vec<Attack> {
    let import = |name, module: &str, item: &str, kind: &str, words| {
        refused(name, Guest::new().import(module, item, kind).build(), ImportRefused, words)
    };
    let wasi = "wasi_snapshot_preview1";
    vec![
        import("imports a function of the system", "env", "system", "(func (param i32))", "`env.system`"),
        import("imports a table", "env", "table", "(table 1 funcref)", "`env.table`"),
        import("imports a global", "env", "stack_pointer", "(global (mut i32))", "`env.stack_pointer`"),
        refused("imports a memory", only("(import \"env\" \"memory\" (memory 1))"), ImportRefused, "`env.memory`"),
        import("imports weir.log as a global", "weir", "log", "(global i32)", "`weir.log`"),
        import(
            "imports state that nobody granted",
            "weir",
            "state_get",
            "(func (param i32 i32 i32 i32) (result i32))",
            "`weir.state_get`",
        ),
        import("imports a function WASI does not have", wasi, "path_execute", "(func)", "path_execute`"),
        import("imports another WASI", "wasi_unstable", "fd_write", "(func)", "`wasi_unstable.fd_write`"),
        import("imports a WASI of components", "wasi:filesystem/types@0.2.0", "open", "(func)", "filesystem"),
        import("imports a name that is escapes for a terminal", "\\1b[2J", "\\0a\\0d", "(func)", ""),
        refused(
            "imports fd_write with another signature",
            Guest::new().wasi("fd_write", "(param i64) (result i64)").build(),
            Link,
            "",
        ),
        refused(
            "imports weir.log with a result",
            Guest::new().import("weir", "log", "(func (param i32 i32 i32) (result i32))").build(),
            Link,
            "",
        ),
    ]
}

fn proposals() -> Vec<Attack> {
    let off = |name, text: &str| refused(name, Guest::new().more(text).build(), Invalid, "");
    vec![
        refused("shared memory", only("(memory 1 1 shared)"), Invalid, "threads"),
        off("atomic operations", "(func (drop (i32.atomic.load (i32.const 0))))"),
        refused("64-bit memory", only("(memory i64 1)"), Invalid, "memory64"),
        off("a second memory", "(memory 1)"),
        off("GC", "(type (struct (field i32)))"),
        off("references to functions", "(type $f (func)) (func (param (ref $f)))"),
        off("external references", "(func (param externref))"),
        off("exceptions", "(tag)"),
        off("exceptions that are caught", "(func try_table end)"),
        off("stack switching", "(type $f (func)) (type $c (cont $f))"),
        off("tail calls", "(func $f (return_call $f))"),
        off("relaxed SIMD", "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))"),
        off("extended constants", "(global i32 (i32.add (i32.const 1) (i32.const 1)))"),
        refused("pages of one byte", only("(memory 1 (pagesize 1))"), Invalid, ""),
        off("wide arithmetic", "(func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1)))"),
    ]
}

fn exports() -> Vec<Attack> {
    let answer = |text: &str| {
        let span = (1024_i64 << 32) | text.len() as i64;
        Guest::new()
            .data(1024, text.as_bytes())
            .more(&format!("(func (export \"weir_describe\") (result i64) (i64.const {span}))"))
            .build()
    };
    let describe =
        |body: &str| Guest::new().more(&format!("(func (export \"weir_describe\") (result i64) {body})")).build();
    vec![
        refused("no exports at all", only(""), ExportMissing, "`memory`"),
        refused(
            "two exports of one name, which is escapes for a terminal",
            Guest::new().more(&"(func (export \"\\1b[2J\\0a\"))".repeat(2)).build(),
            Invalid,
            "duplicate",
        ),
        refused("a function called memory", only("(func (export \"memory\"))"), ExportType, "`memory`"),
        refused(
            "weir_init of another type",
            Guest::new().more("(func (export \"weir_init\") (result i32) (i32.const 0))").build(),
            ExportType,
            "`weir_init`",
        ),
        refused(
            "a cursor of 64 bits",
            Guest::new().more("(global (export \"weir_cursor\") i64 (i64.const 0))").build(),
            ExportType,
            "`weir_cursor`",
        ),
        refused("another version", Guest::new().version("(i32.const 2)").build(), AbiVersion, "version 2"),
        refused("a description that is no JSON", answer("{{{{"), Describe, "`weir_describe`"),
        refused("a description nested without end", answer(&"[".repeat(60_000)), Describe, "`weir_describe`"),
        refused("a description of a GiB", describe("(i64.const 0x40000000)"), Start(abi::HostCode::BadOutput), ""),
        refused(
            "a description that lies outside of the memory",
            describe("(i64.const 0x7fffffff00000010)"),
            Start(abi::HostCode::BadOutput),
            "outside",
        ),
        refused("a trap in start", Guest::new().more("(func $s unreachable) (start $s)").build(), Start(Trap), ""),
        refused("an exit in start", exits_in_start(), Start(Trap), "`proc_exit`"),
    ]
}

fn exits_in_start() -> Vec<u8> {
    Guest::new()
        .wasi("proc_exit", "(param i32)")
        .more(&format!("(func $s (call $proc_exit (i32.const 0)) {FOR_EVER}) (start $s)"))
        .build()
}

/// Bytes that are no module, or would be one under a lenient reader.
fn encodings() -> Vec<Attack> {
    let whole = Guest::new().build();
    let code_at = whole.windows(4).position(|bytes| bytes == b"\x0a\x00\x00\x00").unwrap_or(whole.len() / 2);
    let one_type: &[u8] = &[1, 0x60, 0, 0];
    let every_function = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let invalid = |name, wasm: Vec<u8>| refused(name, wasm, Invalid, "");
    vec![
        refused("nothing", Vec::new(), NotWasm, ""),
        refused("text", b"(module)".to_vec(), NotWasm, ""),
        refused("a later version", b"\0asm\x02\0\0\0".to_vec(), NotWasm, ""),
        refused("a component", module("(component)"), Component, "component"),
        invalid("cut in the middle of its code", whole[..code_at].to_vec()),
        invalid("cut after its first byte of code", whole[..whole.len() - 1].to_vec()),
        invalid("bytes behind its end", [&whole[..], &[1, 2, 3]].concat()),
        invalid("a second module behind its end", [&whole[..], &whole[..]].concat()),
        invalid("a section longer than the file", b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f".to_vec()),
        invalid("a length of six bytes", b"\0asm\x01\0\0\0\x01\x84\x80\x80\x80\x80\x00\x01\x60\0\0".to_vec()),
        invalid("a length with bits over 32", b"\0asm\x01\0\0\0\x01\x84\x80\x80\x80\x7f\x01\x60\0\0".to_vec()),
        refused(
            "four thousand million functions",
            sections(&[(1, one_type), (3, &every_function)]),
            OverLimit,
            "`plugin_functions_max`",
        ),
        invalid("functions without code", sections(&[(1, one_type), (3, &[1, 0])])),
        invalid("code without functions", sections(&[(1, one_type), (10, &[1, 2, 0, 0x0b])])),
        invalid("two sections of types", sections(&[(1, one_type), (1, one_type)])),
        invalid("sections out of order", sections(&[(3, &[0]), (1, one_type)])),
        invalid("a section of an unknown kind", sections(&[(99, &[0])])),
        invalid("a name that is not UTF-8", sections(&[(7, &[1, 2, 0xff, 0xfe, 2, 0])])),
    ]
}

/// What would run as it is, were it taken for something that the host compiled itself.
fn native_code() -> Vec<Attack> {
    let own = compiled_by_ourselves();
    let elf_at = own.windows(4).position(|bytes| bytes == b"\x7fELF").unwrap_or(0);
    vec![
        refused("an ELF file", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(), NotWasm, ""),
        refused("our own compiled form of a plugin", own.clone(), NotWasm, ""),
        refused("the same without what proves that it is ours", own[elf_at..].to_vec(), NotWasm, ""),
    ]
}

/// What a host keeps on its disk of a plugin that it compiled.
fn compiled_by_ourselves() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = transform::PluginHostOptions { instances_max: 1, ..transform::PluginHostOptions::new(dir.path()) };
    let host = transform::PluginHost::new(&options).expect("a host");
    host.load(&Guest::new().build()).expect("a harmless guest");
    let files = std::fs::read_dir(dir.path().join("compiled")).expect("its compiled plugins");
    let paths = files.map(|file| file.expect("a file").path());
    let path = paths.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "compiled"));
    std::fs::read(path.expect("a compiled plugin")).expect("its bytes")
}
