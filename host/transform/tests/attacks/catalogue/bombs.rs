//! Attacks on the compiler: modules that are small and take long, or much memory, to compile. Nearly all of these
//! are refused by their structure, before anything is compiled.

use super::{
    Attack, Class,
    Refusal::{self, Compile, Invalid, OverLimit},
    build::{Guest, leb, only, sections},
};

pub(super) fn attacks() -> Vec<Attack> {
    let refused = |name, wasm, refusal: Refusal, words| Attack::refused(name, Class::CompileBomb, wasm, refusal, words);
    let with = |text: &str| Guest::new().more(text).build();
    let nested = |depth: usize| with(&format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth)));
    let targets = "0 ".repeat(70_000);
    vec![
        refused(
            "fifty thousand locals",
            with(&format!("(func (local {}))", "i64 ".repeat(50_000))),
            OverLimit,
            "`plugin_locals_max`",
        ),
        refused("locals that overflow their count", overflowing_locals(), Invalid, "too many locals"),
        refused("ten thousand nested blocks", nested(10_000), OverLimit, "`plugin_nesting_max`"),
        refused("a hundred thousand functions", with(&"(func)".repeat(100_000)), OverLimit, "`plugin_functions_max`"),
        refused(
            "a br_table of seventy thousand targets",
            with(&format!("(func (block (br_table {targets} (i32.const 0))))")),
            Compile,
            "br_table",
        ),
        refused(
            "a function of half a MiB",
            with(&format!("(func {})", "(drop (i32.const 1))".repeat(180_000))),
            OverLimit,
            "`plugin_function_bytes_max`",
        ),
        refused(
            "a function with two thousand parameters",
            only(&format!("(func (param {}))", "i32 ".repeat(2_000))),
            Invalid,
            "",
        ),
        refused("a hundred thousand types", only(&"(type (func))".repeat(100_000)), OverLimit, "`plugin_items_max`"),
        refused(
            "a hundred thousand element segments",
            only(&format!("(table 1 funcref) {}", "(elem func)".repeat(100_000))),
            OverLimit,
            "`plugin_items_max`",
        ),
        refused(
            "more bytes than a plugin may have",
            sections(&[(0, &vec![0; 5 << 20])]),
            OverLimit,
            "`plugin_bytes_max`",
        ),
    ]
}

/// Two groups of 2^32 - 1 locals.
fn overflowing_locals() -> Vec<u8> {
    let mut body = vec![2];
    for _ in 0..2 {
        leb(&mut body, u64::from(u32::MAX));
        body.push(0x7e);
    }
    body.push(0x0b);
    let mut code = vec![1, body.len() as u8];
    code.extend_from_slice(&body);
    sections(&[(1, &[1, 0x60, 0, 0]), (3, &[1, 0]), (10, &code)])
}
