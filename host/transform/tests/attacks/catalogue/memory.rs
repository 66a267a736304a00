//! Attacks on memory: as much as is granted, more than is granted, and what is never given back.

use abi::HostCode::Trap;

use super::{
    Attack, Class,
    Refusal::{OverLimit, Start},
    build::{Guest, KEEP},
};

/// What the greedy ones are granted: far more than what the measure of memory forgives.
const HELD_BYTES: u64 = 256 << 20;

/// Writes to each page above `$a` pages.
const TOUCH: &str = "
    (local.set $a (i32.shl (local.get $a) (i32.const 16)))
    (loop $touch
        (i32.store (local.get $a) (i32.const -1))
        (local.set $a (i32.add (local.get $a) (i32.const 4096)))
        (br_if $touch (i32.lt_u (local.get $a) (i32.shl (memory.size) (i32.const 16)))))";

pub(super) fn attacks() -> Vec<Attack> {
    [grow(), too_much()].into_iter().flatten().collect()
}

fn grow() -> Vec<Attack> {
    let as_it_can = "(local.set $a (i32.const 16))
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    let a_mib = "(local.set $a (memory.grow (i32.const 16)))
        (if (i32.eq (local.get $a) (i32.const -1)) (then unreachable))";
    let table = "(loop $more (br_if $more
        (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))";
    vec![
        Attack::harmless(
            "grows as far as it can, and holds it",
            Class::Memory,
            Guest::new().process(&format!("{as_it_can} {TOUCH} {KEEP}")).build(),
        )
        .with_limits(|limits| {
            limits.memory_bytes = HELD_BYTES;
            limits.deadline_ms = 2_000;
        })
        .with_batches(3),
        Attack::harmless(
            "leaks a MiB with every batch",
            Class::Memory,
            Guest::new().process(&format!("{a_mib} {TOUCH} {KEEP}")).build(),
        )
        .with_batches(100),
        Attack::fails(
            "grows, and traps with all of it in hand",
            Class::Memory,
            Guest::new().process(&format!("{as_it_can} {TOUCH} unreachable")).build(),
            Trap,
        )
        .with_limits(|limits| {
            limits.memory_bytes = HELD_BYTES;
            limits.deadline_ms = 2_000;
        }),
        Attack::harmless(
            "a table that grows as far as it can",
            Class::Memory,
            Guest::new().more("(table $t 1 funcref)").process(&format!("{table} {KEEP}")).build(),
        ),
        Attack::harmless(
            "as many globals as there may be",
            Class::Memory,
            Guest::new().more(&"(global (mut i64) (i64.const 1))".repeat(20_000)).build(),
        ),
    ]
}

fn too_much() -> Vec<Attack> {
    let memory = |pages: u32| Guest::new().memory(&format!("(memory (export \"memory\") {pages})")).build();
    let refused = |name, wasm, refusal, words| Attack::refused(name, Class::Memory, wasm, refusal, words);
    let with = |text: &str| Guest::new().more(text).build();
    vec![
        refused("a minimum of 4 GiB", memory(65_536), OverLimit, "`guest_memory_bytes_ceiling`"),
        refused("a minimum over what a trial is granted", memory(16_384), Start(Trap), "memory"),
        refused(
            "a table of four thousand million elements",
            with("(table 0xffffffff funcref)"),
            OverLimit,
            "`plugin_table_elements_max`",
        ),
        refused("fifty tables", with(&"(table 1 funcref)".repeat(50)), OverLimit, "`plugin_tables_max`"),
        refused(
            "more globals than there may be",
            with(&"(global (mut i64) (i64.const 1))".repeat(20_001)),
            OverLimit,
            "`plugin_items_max`",
        ),
        refused(
            "more data segments than there may be",
            with(&"(data \"\")".repeat(65_537)),
            OverLimit,
            "`plugin_data_segments_max`",
        ),
        refused("data beyond the memory", with("(data (i32.const 1048575) \"xx\")"), Start(Trap), "out of bounds"),
        refused(
            "elements beyond the table",
            with("(table 1 funcref) (func $f) (elem (i32.const 1) $f)"),
            Start(Trap),
            "out of bounds",
        ),
    ]
}
