//! Attacks that look for what others left behind, and cursors that lie about the record in hand.

use abi::HostCode::Trap;

use super::{Attack, Class, build::Guest};

/// Fails the batch, in place of a trap, when a byte between `$a` and the end of the memory is not zero.
const LOOK: &str = "
    (loop $look
        (if (i64.ne (i64.load (local.get $a)) (i64.const 0)) (then (return (i64.const -1))))
        (local.set $a (i32.add (local.get $a) (i32.const 8)))
        (br_if $look (i32.lt_u (local.get $a) (i32.shl (memory.size) (i32.const 16)))))";

/// Leaves something in all of the memory, the input and what was grown included.
const LEAVE: &str = "
    (drop (memory.grow (i32.const 16)))
    (memory.fill (i32.const 0) (i32.const 0xa5) (i32.shl (memory.size) (i32.const 16)))";

pub(super) fn attacks() -> Vec<Attack> {
    let from = |address: u32| format!("(local.set $a (i32.const {address})) {LOOK}");
    // Above the input's buffer, which the host has just filled.
    let looks_then_leaves = format!("{} {LEAVE} unreachable", from(0x2_0000));
    let global = "(global $g (mut i64) (i64.const 0)) (table $t 4 funcref) (func $f)
        (elem declare func $f)";
    let looks_beside_memory = "
        (if (i64.ne (global.get $g) (i64.const 0)) (then (return (i64.const -1))))
        (if (i32.eqz (ref.is_null (table.get $t (i32.const 3)))) (then (return (i64.const -1))))
        (if (i32.ne (table.size $t) (i32.const 4)) (then (return (i64.const -1))))
        (global.set $g (i64.const 7))
        (table.set $t (i32.const 3) (ref.func $f))
        (drop (table.grow $t (ref.func $f) (i32.const 9)))
        unreachable";
    // Run while the instance starts: the pool gives it memory that all the others of this run had before.
    let looks_at_start = "(func $look (local $a i32) (block $clean
        (loop $look
            (if (i64.ne (i64.load (local.get $a)) (i64.const 0)) (then unreachable))
            (local.set $a (i32.add (local.get $a) (i32.const 8)))
            (br_if $look (i32.lt_u (local.get $a) (i32.shl (memory.size) (i32.const 16))))))) (start $look)";
    let stale = |name, guest: &Guest| Attack::fails(name, Class::StaleMemory, guest.build(), Trap);
    let mut attacks = vec![
        stale("memory of the instance before", &Guest::new().process(&looks_then_leaves)),
        stale("globals and tables of the instance before", &Guest::new().more(global).process(looks_beside_memory)),
        Attack::harmless(
            "memory of everybody before",
            Class::StaleMemory,
            Guest::new().memory("(memory (export \"memory\") 512)").more(looks_at_start).build(),
        ),
    ];
    attacks.extend(cursors());
    attacks
}

/// A guest that fails on `X`, and says that it has another record in hand.
fn cursors() -> Vec<Attack> {
    let moody = include_str!("../../guests/moody.wat");
    let says = |number: &str| {
        let lie = format!("(global.set $cursor {number})");
        moody.replace("(global.set $cursor (local.get $index))", &lie).replace("$CURSOR", "(export \"weir_cursor\")")
    };
    let by_address = moody.replace(
        "(global $cursor $CURSOR (mut i32) (i32.const -1))",
        "(global (export \"weir_cursor\") i32 (i32.const -4)) (global $cursor (mut i32) (i32.const -1))",
    );
    let lies = |name, text: &str| {
        Attack::harmless(name, Class::Cursor, super::build::module(text))
            .with_records(&["one", "two", "X", "four", "five"], &[(2, Trap as u16)])
    };
    vec![
        lies("a cursor that names another record", &says("(i32.const 0)")),
        lies("a cursor that names no record", &says("(i32.const -1)")),
        lies("a cursor that is always one behind", &says("(i32.sub (local.get $index) (i32.const 1))")),
        lies("a cursor outside of the memory", &by_address),
    ]
}
