//! Attacks on the stack that guests share with the host's thread.

use abi::HostCode::Trap;

use super::{Attack, Class, Refusal::Start, build::Guest};

pub(super) fn attacks() -> Vec<Attack> {
    let recursion = "(func $f (param i64) (result i64)
        (i64.add (local.get 0) (call $f (i64.add (local.get 0) (i64.const 1)))))";
    let process = "(call $f (i64.const 0))";
    let each_other = "
        (func $f (param i64) (result i64) (i64.add (local.get 0) (call $g (local.get 0))))
        (func $g (param i64) (result i64) (i64.sub (local.get 0) (call $f (local.get 0))))";
    let through_table = "(table funcref (elem $f)) (type $t (func (param i64) (result i64)))
        (func $f (param i64) (result i64)
            (i64.add (local.get 0) (call_indirect (type $t) (local.get 0) (i32.const 0))))";
    let fails =
        |name, more: &str| Attack::fails(name, Class::Stack, Guest::new().more(more).process(process).build(), Trap);
    let in_start = format!("{recursion} (func $start (drop (call $f (i64.const 0)))) (start $start)");
    vec![
        fails("recursion without end", recursion),
        fails("two functions that call each other", each_other),
        fails("recursion through a table", through_table),
        fails("frames of 16 KiB", &large_frames(1_000)),
        fails("frames of 64 KiB", &large_frames(4_000)),
        Attack::refused(
            "recursion in start",
            Class::Stack,
            Guest::new().more(&in_start).build(),
            Start(Trap),
            "call stack exhausted",
        ),
    ]
}

/// A function that has this many vectors in hand while it calls itself.
fn large_frames(vectors: usize) -> String {
    let make: String =
        (0..vectors).map(|index| format!("(local.set $v{index} (i64x2.splat (local.get $x)))")).collect();
    let locals: String = (0..vectors).map(|index| format!("(local $v{index} v128)")).collect();
    let vary: String = (0..vectors)
        .map(|index| format!("(local.set $v{index} (i64x2.replace_lane 1 (local.get $v{index}) (i64.const {index})))"))
        .collect();
    let gather: String = (0..vectors)
        .map(|index| format!("(local.set $x (i64.add (local.get $x) (i64x2.extract_lane 0 (local.get $v{index}))))"))
        .collect();
    format!(
        "(func $f (param $x i64) (result i64) {locals} {make} {vary}
            (local.set $x (call $f (local.get $x))) {gather} (local.get $x))"
    )
}
