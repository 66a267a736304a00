//! The exports a module must and may have, with their types.
//!
//! Owns the table of the ABI as the host checks it at upload; the names themselves are `abi`'s.

use abi::export;
use wasmparser::{
    ValType,
    types::{EntityType, TypesRef},
};

use crate::plugin::PluginError;

/// A function the ABI speaks of.
struct Function {
    name: &'static str,
    params: &'static [ValType],
    results: &'static [ValType],
    required: bool,
    text: &'static str,
}

const I32: ValType = ValType::I32;
const I64: ValType = ValType::I64;

const FUNCTIONS: [Function; 6] = [
    Function { name: export::ABI_VERSION, params: &[], results: &[I32], required: true, text: "() -> i32" },
    Function { name: export::ALLOC, params: &[I32], results: &[I32], required: true, text: "(i32) -> i32" },
    Function { name: export::PROCESS, params: &[I32, I32], results: &[I64], required: true, text: "(i32, i32) -> i64" },
    Function { name: export::INIT, params: &[I32, I32], results: &[I32], required: false, text: "(i32, i32) -> i32" },
    Function { name: export::DESCRIBE, params: &[], results: &[I64], required: false, text: "() -> i64" },
    Function { name: export::INITIALIZE, params: &[], results: &[], required: false, text: "()" },
];

/// Checks that what the ABI names is there and of its type; exports it does not name are nobody's business.
pub(crate) fn check_exports(types: TypesRef<'_>) -> Result<(), PluginError> {
    let find = |name: &str| types.core_exports().into_iter().flatten().find(|(export, _)| *export == name);
    match find(export::MEMORY) {
        Some((_, EntityType::Memory(_))) => {}
        Some(_) => return Err(PluginError::ExportType { name: export::MEMORY, expected: "a memory" }),
        None => return Err(PluginError::ExportMissing { name: export::MEMORY, expected: "a memory" }),
    }
    for function in &FUNCTIONS {
        let Function { name, text: expected, .. } = *function;
        match find(name) {
            Some((_, found)) if is_of(types, found, function) => {}
            Some(_) => return Err(PluginError::ExportType { name, expected }),
            None if function.required => return Err(PluginError::ExportMissing { name, expected }),
            None => {}
        }
    }
    match find(export::CURSOR) {
        None => Ok(()),
        Some((_, EntityType::Global(global))) if global.content_type == I32 => Ok(()),
        Some(_) => Err(PluginError::ExportType { name: export::CURSOR, expected: "an i32 global" }),
    }
}

fn is_of(types: TypesRef<'_>, found: EntityType, function: &Function) -> bool {
    let EntityType::Func(id) = found else { return false };
    let found = types[id].unwrap_func();
    found.params() == function.params && found.results() == function.results
}
