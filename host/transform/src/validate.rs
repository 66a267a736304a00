//! What a module must be before a byte of it is compiled: upload is hostile input.
//!
//! Owns the WebAssembly features we accept, the structural limits (compile time and memory grow faster than the
//! module: 203 KB with 50,000 locals took 1.55 GiB), and the contract of names: which imports are known, which exports
//! there must be and with what signature. Never compiles and never runs anything.
//!
//! Start at [`check`].

use protocol::limits::{
    GUEST_MEMORY_BYTES_CEILING, PLUGIN_BRANCHES_MAX, PLUGIN_BYTES_MAX, PLUGIN_DATA_SEGMENTS_MAX,
    PLUGIN_FUNCTION_BYTES_MAX, PLUGIN_FUNCTIONS_MAX, PLUGIN_ITEMS_MAX, PLUGIN_LOCALS_MAX, PLUGIN_LOCALS_SUM_MAX,
    PLUGIN_NESTING_MAX, PLUGIN_TABLE_ELEMENTS_MAX, PLUGIN_TABLES_MAX, PLUGIN_TYPE_VALUES_MAX,
};
use wasmparser::{
    CompositeInnerType, ElementItems, ElementSectionReader, Encoding, FuncToValidate, FuncValidatorAllocations,
    FunctionBody, Operator, Parser, Payload, TypeSectionReader, ValidPayload, Validator, ValidatorResources,
    WasmFeatures,
};

use crate::{contract, imports, plugin::PluginError};

/// WebAssembly 2.0 without garbage-collected references: what the compilers of today emit by default.
///
/// Everything else stays off, threads, memory64, multi-memory, relaxed SIMD (results differ between processors), GC,
/// exceptions, stack switching and components above all: each is surface that no guest needs.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS);

/// Checks a module against every rule that can be known without running it.
///
/// # Errors
/// The first rule it breaks.
pub(crate) fn check(wasm: &[u8]) -> Result<(), PluginError> {
    check_size(wasm)?;
    check_header(wasm)?;
    let mut validator = Validator::new_with_features(FEATURES);
    let mut allocations = FuncValidatorAllocations::default();
    let (mut types, mut locals) = (None, 0_u64);
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        check_section(&payload)?;
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => {
                allocations = check_function(function, &body, allocations, &mut locals)?;
            }
            ValidPayload::End(of_module) => types = Some(of_module),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    // `parse_all` ends either with an error or with the end of the module.
    let types = types.ok_or(PluginError::NotWasm)?;
    contract::check_exports(types.as_ref())
}

/// Checks what can be known without a look inside.
pub(crate) fn check_size(wasm: &[u8]) -> Result<(), PluginError> {
    over("module of", wasm.len() as u64, "plugin_bytes_max", PLUGIN_BYTES_MAX as u64)
}

/// Tells what people upload by mistake from what is merely broken: a precompiled module is never accepted.
fn check_header(wasm: &[u8]) -> Result<(), PluginError> {
    let Some((magic, version)) = wasm.get(..8).map(|header| header.split_at(4)) else {
        return Err(PluginError::NotWasm);
    };
    match (magic, version) {
        (b"\0asm", [1, 0, 0, 0]) => Ok(()),
        (b"\0asm", [_, _, 1, 0]) => Err(PluginError::Component),
        _ => Err(PluginError::NotWasm),
    }
}

fn check_section(payload: &Payload<'_>) -> Result<(), PluginError> {
    let items = |what, count: u32| over(what, count.into(), "plugin_items_max", PLUGIN_ITEMS_MAX.into());
    match payload {
        Payload::Version { encoding: Encoding::Component, .. } => Err(PluginError::Component),
        Payload::TypeSection(section) => {
            items("number of types", section.count())?;
            check_types(section)
        }
        Payload::ImportSection(section) => {
            items("number of imports", section.count())?;
            section.clone().into_imports().try_for_each(|import| imports::check(&import?))
        }
        Payload::FunctionSection(section) => {
            over("number of functions", section.count().into(), "plugin_functions_max", PLUGIN_FUNCTIONS_MAX.into())
        }
        Payload::TableSection(section) => check_tables(section),
        Payload::MemorySection(section) => section.clone().into_iter().try_for_each(|memory| {
            let bytes = memory?.initial.saturating_mul(64 << 10);
            over("initial memory of", bytes, "guest_memory_bytes_ceiling", GUEST_MEMORY_BYTES_CEILING as u64)
        }),
        Payload::GlobalSection(section) => items("number of globals", section.count()),
        Payload::ExportSection(section) => items("number of exports", section.count()),
        Payload::ElementSection(section) => {
            items("number of element segments", section.count())?;
            check_elements(section)
        }
        Payload::DataSection(section) => {
            let (count, max) = (section.count().into(), PLUGIN_DATA_SEGMENTS_MAX.into());
            over("number of data segments", count, "plugin_data_segments_max", max)
        }
        _ => Ok(()),
    }
}

fn check_types(section: &TypeSectionReader<'_>) -> Result<(), PluginError> {
    for group in section.clone() {
        for of_type in group?.into_types() {
            // Any other type is a proposal that is off.
            if let CompositeInnerType::Func(function) = &of_type.composite_type.inner {
                let values = function.params().len().max(function.results().len()) as u64;
                let max = PLUGIN_TYPE_VALUES_MAX.into();
                over("number of parameters or results of a type", values, "plugin_type_values_max", max)?;
            }
        }
    }
    Ok(())
}

fn check_elements(section: &ElementSectionReader<'_>) -> Result<(), PluginError> {
    let mut elements = 0_u64;
    for segment in section.clone() {
        elements += u64::from(match segment?.items {
            ElementItems::Functions(functions) => functions.count(),
            ElementItems::Expressions(_, expressions) => expressions.count(),
        });
    }
    over("number of elements of all segments", elements, "plugin_table_elements_max", PLUGIN_TABLE_ELEMENTS_MAX)
}

fn check_tables(section: &wasmparser::TableSectionReader<'_>) -> Result<(), PluginError> {
    over("number of tables", section.count().into(), "plugin_tables_max", PLUGIN_TABLES_MAX.into())?;
    let mut elements = 0_u64;
    for table in section.clone() {
        elements = elements.saturating_add(table?.ty.initial);
    }
    over("number of table elements", elements, "plugin_table_elements_max", PLUGIN_TABLE_ELEMENTS_MAX)
}

fn check_function(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    allocations: FuncValidatorAllocations,
    locals_before: &mut u64,
) -> Result<FuncValidatorAllocations, PluginError> {
    let bytes = body.range().len() as u64;
    over("function body of", bytes, "plugin_function_bytes_max", PLUGIN_FUNCTION_BYTES_MAX as u64)?;
    let mut locals = 0_u64;
    for group in body.get_locals_reader()? {
        locals = locals.saturating_add(group?.0.into());
    }
    over("number of locals of a function", locals, "plugin_locals_max", PLUGIN_LOCALS_MAX.into())?;
    check_blocks(body)?;
    let mut validator = function.into_validator(allocations);
    validator.validate(body)?;
    *locals_before += u64::from(validator.len_locals());
    let what = "number of locals and parameters of all functions";
    over(what, *locals_before, "plugin_locals_sum_max", PLUGIN_LOCALS_SUM_MAX.into())?;
    Ok(validator.into_allocations())
}

fn check_blocks(body: &FunctionBody<'_>) -> Result<(), PluginError> {
    let (mut depth, mut branches) = (0_u64, 0_u64);
    for operator in body.get_operators_reader()? {
        match operator? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                depth += 1;
                branches += 1;
                over("nesting of blocks", depth, "plugin_nesting_max", PLUGIN_NESTING_MAX.into())?;
            }
            Operator::Br { .. } | Operator::BrIf { .. } | Operator::BrTable { .. } | Operator::Else => branches += 1,
            // The function's own `end` takes the depth no lower than where it began.
            Operator::End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    over("number of blocks and branches of a function", branches, "plugin_branches_max", PLUGIN_BRANCHES_MAX.into())
}

fn over(what: &'static str, value: u64, limit: &'static str, max: u64) -> Result<(), PluginError> {
    if value > max { Err(PluginError::OverLimit { what, value, limit, max }) } else { Ok(()) }
}
