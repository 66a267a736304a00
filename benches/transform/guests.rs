//! The guests that are measured, and those that do harm.

/// The plugin that filters by a text.
pub(crate) const CONTAINS: &[u8] = include_bytes!("../../plugins/contains/contains.wasm");

/// See `benches/guests/serde-filter`.
pub(crate) const SERDE_FILTER: &[u8] = include_bytes!("../guests/serde-filter/serde-filter.wasm");

/// See `benches/guests/envelope`.
pub(crate) const ENVELOPE: &[u8] = include_bytes!("../guests/envelope/envelope.wasm");

/// Keeps everything, having looked at every record's place: what the smallest plugin does.
const NO_OP: &str = r#"(module
    (memory (export "memory") 96)
    (func (export "weir_abi_version") (result i32) (i32.const 1))
    (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))
    (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
        (local $at i32) (local $end i32) (local $byte i32) (local $raw i32) (local $shift i32) (local $seen i32)
        (local.set $at (i32.add (local.get $ptr) (i32.load (local.get $ptr))))
        (local.set $end (i32.add (local.get $ptr) (local.get $len)))
        (block $done
            (loop $record
                (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
                (local.set $raw (i32.const 0))
                (local.set $shift (i32.const 0))
                (loop $varint
                    (local.set $byte (i32.load8_u (local.get $at)))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (local.set $raw (i32.or (local.get $raw)
                        (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
                    (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
                    (br_if $varint (i32.ge_u (local.get $byte) (i32.const 128))))
                (local.set $at (i32.add (local.get $at) (i32.shr_u (local.get $raw) (i32.const 1))))
                (local.set $seen (i32.add (local.get $seen) (i32.const 1)))
                (br $record)))
        (i32.store (i32.const 0) (i32.const 0))
        (i32.store (i32.const 4) (local.get $seen))
        (i64.const 8)))"#;

/// Spins `$turns` times (for ever where that is 0) and keeps everything then.
const SPIN: &str = r#"(module
    (memory (export "memory") 96)
    (func (export "weir_abi_version") (result i32) (i32.const 1))
    (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))
    (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
        (local $turn i64)
        (loop $again
            (local.set $turn (i64.add (local.get $turn) (i64.const 1)))
            (br_if $again (i64.ne (local.get $turn) (i64.const $turns))))
        (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
        (i64.const 8)))"#;

/// See [`NO_OP`].
pub(crate) fn no_op() -> Vec<u8> {
    wat::parse_str(NO_OP).expect("the guest is sound")
}

/// Uses CPU time in every call: a loop of so many turns, or an endless one.
pub(crate) fn spin(turns: Option<u64>) -> Vec<u8> {
    let turns = turns.unwrap_or(0).to_string();
    wat::parse_str(SPIN.replace("$turns", &turns)).expect("the guest is sound")
}
