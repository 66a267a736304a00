//! Modules that pass every structural check and are heavy to compile. Whether one compiles within the bounds depends on
//! the machine and the build; the broker does not.

use std::fmt::Write as _;

/// Names and modules.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("thousands of locals that live through thousands of blocks", pressure(4_000, 3_000)),
        ("hundreds of vectors in hand at once", vectors(800)),
        ("fifteen thousand loops of one instruction each", fills(15_000)),
        ("a thousand nested loops", nested(1_000)),
        ("a br_table of sixty thousand targets", targets(60_000)),
        ("twenty thousand functions of a hundred bytes", functions(19_000)),
    ]
}

fn guest(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 16)
            (func (export "weir_abi_version") (result i32) (i32.const 1))
            (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "weir_process") (param i32 i32) (result i64) (i64.const -1))
            {body})"#
    );
    wat::parse_str(text).expect("the text is WebAssembly")
}

/// Every block may be left from its middle, so each local has a value of its own behind each.
fn pressure(locals: usize, blocks: usize) -> Vec<u8> {
    let mut body = String::from("(func (export \"f\") (param $p i32) (result i64)\n");
    (0..locals).for_each(|local| writeln!(body, "(local $v{local} i64)").expect("a string grows"));
    for block in 0..blocks {
        let (a, b) = (block % locals, block * 7 % locals);
        writeln!(
            body,
            "(block (br_if 0 (local.get $p)) (local.set $v{a} (i64.add (local.get $v{b}) (i64.const {block}))))"
        )
        .expect("a string grows");
    }
    let sum: String =
        (0..locals).map(|local| format!("(local.set $v0 (i64.xor (local.get $v0) (local.get $v{local})))")).collect();
    guest(&format!("{body} {sum} (local.get $v0))"))
}

fn vectors(count: usize) -> Vec<u8> {
    let loads: String = (0..count).map(|index| format!("(v128.load (i32.const {}))", index * 16)).collect();
    guest(&format!("(func (export \"f\") (result v128) {loads} {})", "i64x2.add ".repeat(count - 1)))
}

fn fills(count: usize) -> Vec<u8> {
    let fill = "(memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))";
    guest(&format!("(func (export \"f\") {})", fill.repeat(count)))
}

fn nested(depth: usize) -> Vec<u8> {
    let open = "(loop (br_if 0 (i32.eqz (local.tee 0 (i32.add (local.get 0) (i32.const 1)))))";
    guest(&format!("(func (export \"f\") (param i32) {} {})", open.repeat(depth), ")".repeat(depth)))
}

fn targets(count: usize) -> Vec<u8> {
    let labels = "0 1 ".repeat(count / 2);
    guest(&format!("(func (export \"f\") (param i32) (block (block (br_table {labels} 0 (local.get 0)))))"))
}

fn functions(count: usize) -> Vec<u8> {
    let sum = "(local.set 0 (i64.mul (local.get 0) (i64.add (local.get 0) (i64.const 3))))".repeat(10);
    guest(&format!("(func (param i64) (result i64) {sum} (local.get 0))").repeat(count))
}
