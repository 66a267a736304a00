//! Attacks on time: loops in every export, code without a back edge to be stopped at, and work that the host does.

use abi::HostCode::Deadline;

use super::{
    Attack, Class,
    Refusal::Start,
    build::{FOR_EVER, Guest, KEEP},
};

/// Calls of the host in a row: about as many as a function can hold.
const STRAIGHT_CALLS: usize = 15_000;

/// Instructions in a row that take long each. Each becomes a loop when it is compiled, so there are not as many.
const STRAIGHT_FILLS: usize = 1_500;

pub(super) fn attacks() -> Vec<Attack> {
    [loops(), straight_lines(), storms()].into_iter().flatten().collect()
}

fn refused(name: &'static str, guest: &Guest) -> Attack {
    Attack::refused(name, Class::Cpu, guest.build(), Start(Deadline), "`deadline_ms`")
}

fn fails(name: &'static str, guest: &Guest) -> Attack {
    Attack::fails(name, Class::Cpu, guest.build(), Deadline)
}

fn loops() -> Vec<Attack> {
    let exported =
        |name: &str, signature: &str| Guest::new().more(&format!("(func (export \"{name}\") {signature} {FOR_EVER})"));
    let just_under = "(local.set $a (i32.const 5000000))
        (loop $work (br_if $work (local.tee $a (i32.sub (local.get $a) (i32.const 1)))))";
    vec![
        refused("loop in start", &Guest::new().more(&format!("(func $start {FOR_EVER}) (start $start)"))),
        refused("loop in _initialize", &exported("_initialize", "")),
        refused("loop in weir_abi_version", &Guest::new().version(FOR_EVER)),
        refused("loop in weir_describe", &exported("weir_describe", "(result i64)")),
        Attack::not_deployed(
            "loop in weir_init",
            Class::Cpu,
            exported("weir_init", "(param i32 i32) (result i32)").build(),
            Deadline,
        ),
        fails("loop in weir_alloc", &Guest::new().alloc(FOR_EVER)),
        fails("loop in weir_process", &Guest::new().process(FOR_EVER)),
        fails("calls without end and without a loop", &doubling_calls()),
        // Never stopped: its time is its own, and the neighbours have theirs.
        Attack::harmless(
            "just under the deadline, batch after batch",
            Class::Cpu,
            Guest::new().process(&format!("{just_under} {KEEP}")).build(),
        )
        .with_limits(|limits| limits.deadline_ms = 1_000)
        .with_batches(10),
    ]
}

/// Sixty functions, each calling the next one twice.
fn doubling_calls() -> Guest {
    let function = |index: usize| format!("(func $f{index} (call $f{0}) (call $f{0}))", index + 1);
    let functions: String = (0..60).map(function).collect();
    Guest::new().process(&format!("(call $f0) {KEEP}")).more(&format!("{functions} (func $f60)"))
}

fn straight_lines() -> Vec<Attack> {
    let repeated = |line: &str| format!("{} {KEEP}", line.repeat(STRAIGHT_CALLS));
    let filled = |line: &str| format!("{} {KEEP}", line.repeat(STRAIGHT_FILLS));
    let whole_memory = "(memory (export \"memory\") 1024)";
    // Much of it is bytes that become nothing: it has to compile within its bounds in a slow build, too.
    let sum = [
        "(local.set $x (i32.add (local.get $x) (i32.const 7)))".repeat(10_000),
        "(drop (i64.const -9223372036854775808))".repeat(12_000),
    ]
    .concat();
    let sums: String = (0..5).map(|index| format!("(func $sum{index} (param $x i32) {sum})")).collect();
    let calls: String = (0..5).map(|index| format!("(call $sum{index} (i32.const 1))")).collect();
    vec![
        Attack::harmless(
            "a megabyte of straight code",
            Class::Cpu,
            Guest::new().process(&format!("{calls} {KEEP}")).more(&sums).build(),
        ),
        fails(
            "memory.fill of everything, in a straight line",
            &Guest::new()
                .memory(whole_memory)
                .process(&filled("(memory.fill (i32.const 0) (i32.const 1) (i32.const 0x4000000))")),
        ),
        fails(
            "memory.copy of everything, in a straight line",
            &Guest::new()
                .memory(whole_memory)
                .process(&filled("(memory.copy (i32.const 0) (i32.const 1) (i32.const 0x3ffffff))")),
        ),
        fails(
            "table.fill of everything, in a straight line",
            &Guest::new()
                .more("(table $t 100000 funcref)")
                .process(&filled("(table.fill $t (i32.const 0) (ref.null func) (i32.const 100000))")),
        ),
        fails(
            "random_get of a MiB, in a straight line",
            &Guest::new()
                .memory(whole_memory)
                .wasi("random_get", "(param i32 i32) (result i32)")
                .process(&repeated("(drop (call $random_get (i32.const 0) (i32.const 0x100000)))")),
        ),
        fails("fd_write of a thousand vectors, in a straight line", &vectors(&repeated(WRITE))),
    ]
}

const WRITE: &str = "(drop (call $fd_write (i32.const 2) (i32.const 0x20000) (i32.const 1024) (i32.const 8)))";

/// Each of 1,024 vectors at 0x20000 names 4 KiB of line ends, with a letter between them.
fn vectors(body: &str) -> Guest {
    let vector = [0x3_0000_u32.to_le_bytes(), 4_096_u32.to_le_bytes()].concat();
    Guest::new()
        .wasi("fd_write", "(param i32 i32 i32 i32) (result i32)")
        .data(0x2_0000, &vector.repeat(1_024))
        .data(0x3_0000, &b"x\n".repeat(2_048))
        .process(body)
}

/// Host functions called for ever.
fn storms() -> Vec<Attack> {
    let for_ever = |body: &str| format!("(loop $storm {body} (br $storm)) unreachable");
    let cursor = "(global $cursor (export \"weir_cursor\") (mut i32) (i32.const 0))";
    let time = "(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 8)))";
    let there_and_back = format!(
        "(global.set $cursor (i32.const 0)) {time}
         (global.set $cursor (i32.sub (i32.load offset=4 (local.get $ptr)) (i32.const 1))) {time}"
    );
    vec![
        fails(
            "log lines without end",
            &Guest::new()
                .import("weir", "log", "(func $log (param i32 i32 i32))")
                .process(&for_ever("(call $log (i32.const 1) (i32.const 0) (i32.const 65536))")),
        ),
        fails("fd_write of a thousand vectors without end", &vectors(&for_ever(WRITE))),
        fails(
            "the clock asked for the first and the last record in turn",
            &Guest::new()
                .wasi("clock_time_get", "(param i32 i64 i32) (result i32)")
                .more(cursor)
                .process(&for_ever(&there_and_back)),
        ),
        fails(
            "memory.grow by nothing without end",
            &Guest::new().process(&for_ever("(drop (memory.grow (i32.const 0)))")),
        ),
    ]
}
