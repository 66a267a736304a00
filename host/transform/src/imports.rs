//! What a guest may import, and nothing else: `weir.log` and a deny-all shim of WASI preview 1.
//!
//! Owns the list of known names (checked at upload) and their host functions. A host function checks every address in
//! 64 bits, does a bounded amount of work, and never blocks: epochs cannot interrupt it. Those that do work look at the
//! deadline first, because between two of them in a straight line nobody else does.
//!
//! The shim exists because C, Go and others cannot be built without WASI. Output goes to the log, the clock is the
//! record's, randomness is seeded; there are no arguments, no environment, no files, no sockets, no waiting.

use wasmparser::TypeRef;
use wasmtime::{Caller, Engine, Extern, FuncType, Linker, Memory, Val, ValType};

use crate::{
    guest::{self, Guest},
    plugin::PluginError,
};

const WASI: &str = "wasi_snapshot_preview1";

/// Bytes one `random_get` may ask for: more is no use for a seed, and epochs cannot interrupt the host.
const RANDOM_BYTES_MAX: usize = 1 << 20;

/// Buffers one `fd_write` may name, as on Linux.
const IO_VECTORS_MAX: u32 = 1_024;

/// Bytes of one `fd_write` that are looked at: more than the lines that a call may log.
const IO_BYTES_MAX: usize = 512 << 10;

const SUCCESS: i32 = 0;
const BAD_FILE: i32 = 8;
const FAULT: i32 = 21;
const INVALID: i32 = 28;
const NOT_SUPPORTED: i32 = 58;
const NOT_CAPABLE: i32 = 76;

/// A file type of WASI's.
const CHARACTER_DEVICE: u8 = 2;

/// The right to `fd_write`, and to nothing else.
const RIGHT_FD_WRITE: u64 = 1 << 6;

/// WASI functions that do something here.
const GRANTED: [&str; 9] = [
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_sizes_get",
    "fd_fdstat_get",
    "fd_write",
    "proc_exit",
    "random_get",
    "sched_yield",
];

/// WASI functions that only refuse: name, parameters (`i` for i32, `I` for i64), errno.
const DENIED: [(&str, &str, i32); 37] = [
    ("args_get", "ii", SUCCESS), // there are none: `args_sizes_get` says so
    ("environ_get", "ii", SUCCESS),
    ("fd_advise", "iIIi", BAD_FILE),
    ("fd_allocate", "iII", BAD_FILE),
    ("fd_close", "i", BAD_FILE),
    ("fd_datasync", "i", BAD_FILE),
    ("fd_fdstat_set_flags", "ii", BAD_FILE),
    ("fd_fdstat_set_rights", "iII", BAD_FILE),
    ("fd_filestat_get", "ii", BAD_FILE),
    ("fd_filestat_set_size", "iI", BAD_FILE),
    ("fd_filestat_set_times", "iIIi", BAD_FILE),
    ("fd_pread", "iiiIi", BAD_FILE),
    ("fd_prestat_dir_name", "iii", BAD_FILE),
    ("fd_prestat_get", "ii", BAD_FILE), // ends libc's search for preopened directories
    ("fd_pwrite", "iiiIi", BAD_FILE),
    ("fd_read", "iiii", BAD_FILE),
    ("fd_readdir", "iiiIi", BAD_FILE),
    ("fd_renumber", "ii", BAD_FILE),
    ("fd_seek", "iIii", BAD_FILE),
    ("fd_sync", "i", BAD_FILE),
    ("fd_tell", "ii", BAD_FILE),
    ("path_create_directory", "iii", NOT_CAPABLE),
    ("path_filestat_get", "iiiii", NOT_CAPABLE),
    ("path_filestat_set_times", "iiiiIIi", NOT_CAPABLE),
    ("path_link", "iiiiiii", NOT_CAPABLE),
    ("path_open", "iiiiiIIii", NOT_CAPABLE),
    ("path_readlink", "iiiiii", NOT_CAPABLE),
    ("path_remove_directory", "iii", NOT_CAPABLE),
    ("path_rename", "iiiiii", NOT_CAPABLE),
    ("path_symlink", "iiiii", NOT_CAPABLE),
    ("path_unlink_file", "iii", NOT_CAPABLE),
    ("poll_oneoff", "iiii", NOT_SUPPORTED),
    ("proc_raise", "i", NOT_SUPPORTED),
    ("sock_accept", "iii", NOT_CAPABLE),
    ("sock_recv", "iiiiii", NOT_CAPABLE),
    ("sock_send", "iiiii", NOT_CAPABLE),
    ("sock_shutdown", "ii", NOT_CAPABLE),
];

/// Refuses an import that is not known by name, before anything is compiled. Its type is checked when it is linked.
pub(crate) fn check(import: &wasmparser::Import<'_>) -> Result<(), PluginError> {
    let known = match import.module {
        abi::import::MODULE => import.name == abi::import::LOG,
        WASI => GRANTED.contains(&import.name) || DENIED.iter().any(|(name, ..)| *name == import.name),
        _ => false,
    };
    if known && matches!(import.ty, TypeRef::Func(_)) {
        return Ok(());
    }
    // A name may be long, and anything: it ends up in logs and on terminals.
    let shown = |name: &str| guest::printable(name.as_bytes());
    Err(PluginError::ImportRefused { module: shown(import.module), name: shown(import.name) })
}

/// A guest asked to end its process; here that ends the instance.
#[derive(Debug, thiserror::Error)]
#[error("called `proc_exit` with {0}")]
pub(crate) struct Exited(i32);

/// All host functions, for guests to be linked with.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(abi::import::MODULE, abi::import::LOG, log)?;
    linker.func_wrap(WASI, "args_sizes_get", sizes_get)?;
    linker.func_wrap(WASI, "environ_sizes_get", sizes_get)?;
    linker.func_wrap(WASI, "clock_res_get", clock_res_get)?;
    linker.func_wrap(WASI, "clock_time_get", clock_time_get)?;
    linker.func_wrap(WASI, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(WASI, "fd_write", fd_write)?;
    linker.func_wrap(WASI, "random_get", random_get)?;
    linker.func_wrap(WASI, "sched_yield", || SUCCESS)?;
    linker.func_wrap(WASI, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(Exited(code).into()) })?;
    for (name, params, errno) in DENIED {
        let params = params.chars().map(|letter| if letter == 'I' { ValType::I64 } else { ValType::I32 });
        let of = FuncType::new(engine, params, [ValType::I32]);
        linker.func_new(WASI, name, of, move |_, _, results| {
            results[0] = Val::I32(errno);
            Ok(())
        })?;
    }
    Ok(linker)
}

fn memory_of(caller: &mut Caller<'_, Guest>) -> Option<Memory> {
    // While `start` runs nobody has looked the export up yet.
    caller.data().memory.or_else(|| caller.get_export(abi::export::MEMORY).and_then(Extern::into_memory))
}

/// The bytes of `length` at `address`, if they are inside the memory.
fn slice(memory: &mut [u8], address: i32, length: u32) -> Option<&mut [u8]> {
    let start = usize::try_from(address.cast_unsigned()).ok()?;
    let end = u64::from(address.cast_unsigned()) + u64::from(length);
    memory.get_mut(start..usize::try_from(end).ok()?)
}

fn put<const N: usize>(memory: &mut [u8], address: i32, bytes: [u8; N]) -> Option<()> {
    slice(memory, address, u32::try_from(N).ok()?)?.copy_from_slice(&bytes);
    Some(())
}

fn get_u32(memory: &mut [u8], address: i32) -> Option<u32> {
    slice(memory, address, 4)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// An errno: a guest that names bytes outside its memory is told so and lives on.
fn errno(done: Option<()>) -> i32 {
    if done.is_some() { SUCCESS } else { FAULT }
}

/// `weir.log`: a text that is not inside the memory is logged as such.
fn log(mut caller: Caller<'_, Guest>, level: i32, address: i32, length: i32) -> wasmtime::Result<()> {
    caller.data_mut().tick_of_host()?;
    let Some(memory) = memory_of(&mut caller) else { return Ok(()) };
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    let level = abi::LogLevel::from_number(level);
    match slice(bytes, address, length.cast_unsigned()) {
        Some(text) => guest.log.line(level, text),
        None => guest.log.line(level, b"(a text outside of the guest's memory)"),
    }
    Ok(())
}

fn sizes_get(mut caller: Caller<'_, Guest>, count: i32, bytes: i32) -> i32 {
    let Some(memory) = memory_of(&mut caller) else { return FAULT };
    let memory = memory.data_mut(&mut caller);
    errno(put(memory, count, [0; 4]).and_then(|()| put(memory, bytes, [0; 4])))
}

fn clock_res_get(mut caller: Caller<'_, Guest>, _clock: i32, out: i32) -> i32 {
    let Some(memory) = memory_of(&mut caller) else { return FAULT };
    errno(put(memory.data_mut(&mut caller), out, 1_000_000_u64.to_le_bytes()))
}

fn clock_time_get(mut caller: Caller<'_, Guest>, _clock: i32, _precision: i64, out: i32) -> wasmtime::Result<i32> {
    caller.data_mut().tick_of_host()?;
    let Some(memory) = memory_of(&mut caller) else { return Ok(FAULT) };
    let cursor = caller.data().cursor.read(&mut caller);
    let now_ns = match caller.data_mut().place.now_ms(cursor).saturating_mul(1_000_000) {
        // Before the first batch there is no record. Go takes a clock that says zero for one that is not there.
        0 => 1,
        now_ns => now_ns,
    };
    Ok(errno(put(memory.data_mut(&mut caller), out, now_ns.to_le_bytes())))
}

fn random_get(mut caller: Caller<'_, Guest>, address: i32, length: i32) -> wasmtime::Result<i32> {
    caller.data_mut().tick_of_host()?;
    if length.cast_unsigned() as usize > RANDOM_BYTES_MAX {
        return Ok(INVALID);
    }
    let Some(memory) = memory_of(&mut caller) else { return Ok(FAULT) };
    let cursor = caller.data().cursor.read(&mut caller);
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    let out = slice(bytes, address, length.cast_unsigned());
    Ok(errno(out.map(|out| guest.place.draw(cursor, out))))
}

/// Standard output and error are a terminal's, which can be written and not sought: so libc writes line by line, and
/// does not keep everything for a flush that never comes.
fn fd_fdstat_get(mut caller: Caller<'_, Guest>, file: i32, out: i32) -> i32 {
    if !matches!(file, 1 | 2) {
        return BAD_FILE;
    }
    let Some(memory) = memory_of(&mut caller) else { return FAULT };
    // u8 file type, padding, u16 flags, padding, u64 rights, u64 rights of files opened through it.
    let mut stat = [0; 24];
    stat[0] = CHARACTER_DEVICE;
    stat[8..16].copy_from_slice(&RIGHT_FD_WRITE.to_le_bytes());
    errno(put(memory.data_mut(&mut caller), out, stat))
}

/// Writes to standard output and error become lines in the log.
fn fd_write(mut caller: Caller<'_, Guest>, file: i32, vectors: i32, count: i32, written: i32) -> wasmtime::Result<i32> {
    caller.data_mut().tick_of_host()?;
    if !matches!(file, 1 | 2) {
        return Ok(BAD_FILE);
    }
    if count.cast_unsigned() > IO_VECTORS_MAX {
        return Ok(INVALID);
    }
    let Some(memory) = memory_of(&mut caller) else { return Ok(FAULT) };
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    let stream = usize::from(file == 2);
    let mut room = IO_BYTES_MAX;
    let mut write = |text: &[u8]| {
        let heard = &text[..text.len().min(room)];
        room -= heard.len();
        guest.log.write(stream, heard);
    };
    let total = gather(bytes, vectors, count, &mut write);
    Ok(errno(total.and_then(|total| put(bytes, written, total.to_le_bytes()))))
}

/// Walks the buffers and returns the length of all.
fn gather(memory: &mut [u8], vectors: i32, count: i32, each: &mut dyn FnMut(&[u8])) -> Option<u32> {
    let mut total = 0_u32;
    for index in 0..count {
        let vector = vectors.checked_add(index.checked_mul(8)?)?;
        let address = get_u32(memory, vector)?.cast_signed();
        let length = get_u32(memory, vector.checked_add(4)?)?;
        each(slice(memory, address, length)?);
        total = total.checked_add(length)?;
    }
    Some(total)
}
