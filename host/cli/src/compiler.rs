//! Compiles plugins in a process of its own: what passes every check of a module's structure may still cost more memory
//! and time than a broker has to spare, and a fault of the compiler must not be one of the broker.
//!
//! Owns both ends: [`ChildCompiler`] runs this binary again (`weir internal compile`), bounded in memory and CPU time,
//! gives it the module and reads its answer; [`compile`] is what the child does.
//!
//! ```text
//! parent -> stdin    the module
//! child -> stdout    native code | 1 byte: it is that       or       a text | 1 byte: why not
//! child -> stderr    what it died of
//! ```
//!
//! Invariants
//! - Whatever the child does, it is ended and reaped, and the answer is a typed error or all of the code.
//! - Who keeps native code authenticates it; the child knows no key.

use std::{
    io::{self, Read, Write},
    process::{ExitStatus, Stdio},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use protocol::limits::{
    PLUGIN_BYTES_MAX, PLUGIN_COMPILE_CPU_SECONDS, PLUGIN_COMPILE_MEMORY_BYTES, PLUGIN_COMPILE_WALL_FACTOR,
    PLUGIN_COMPILED_BYTES_MAX,
};
use server::TransformsConfig;
use transform::{Cancel, CompileError, Compiler, NativeCode, precompile};

use crate::child::{self, Bounds, Child, Ended};

/// What is read of the child's last words.
const LAST_WORDS_BYTES_MAX: u64 = 4 << 10;

/// The last byte of an answer.
const IS_CODE: u8 = 0;
const IS_REFUSED: u8 = 1;
const IS_OUT_OF_MEMORY: u8 = 2;

/// How Rust's runtime begins to say that memory is out, before it aborts.
const OUT_OF_MEMORY: &str = "memory allocation of ";

/// Compiles in a child process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChildCompiler {
    bounds: Bounds,
}

impl Default for ChildCompiler {
    fn default() -> ChildCompiler {
        ChildCompiler {
            bounds: Bounds { memory_bytes: PLUGIN_COMPILE_MEMORY_BYTES, cpu_seconds: PLUGIN_COMPILE_CPU_SECONDS },
        }
    }
}

impl ChildCompiler {
    /// With the bounds of a broker's configuration.
    pub(crate) fn new(config: &TransformsConfig) -> ChildCompiler {
        let TransformsConfig { compile_memory_bytes: memory_bytes, compile_cpu_seconds: cpu_seconds, .. } = *config;
        ChildCompiler { bounds: Bounds { memory_bytes, cpu_seconds } }
    }

    fn spawn(&self) -> io::Result<Child> {
        let Bounds { memory_bytes, cpu_seconds } = self.bounds;
        let args = ["internal", "compile", &memory_bytes.to_string(), &cpu_seconds.to_string()];
        let mut command = child::command(&args)?;
        Child::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn wait(&self) -> Duration {
        Duration::from_secs(self.bounds.cpu_seconds.saturating_mul(PLUGIN_COMPILE_WALL_FACTOR))
    }
}

impl Compiler for ChildCompiler {
    fn compile(&self, wasm: &[u8], cancel: &Cancel) -> Result<NativeCode, CompileError> {
        let child = self.spawn().map_err(CompileError::Host)?;
        let talked = talk(child, wasm, self.wait(), || cancel.is_cancelled()).map_err(CompileError::Host)?;
        judge(talked, self.bounds, self.wait())
    }
}

/// How a child ended, and what it said.
#[derive(Debug)]
struct Talked {
    ended: Ended,
    answer: Vec<u8>,
    last_words: String,
}

/// Gives the child the module, hears it out, and ends it. Nothing it does with its pipes holds this up: each is served by
/// a thread, and closed when the child is dead.
fn talk(child: Child, wasm: &[u8], wait: Duration, is_cancelled: impl Fn() -> bool) -> io::Result<Talked> {
    thread::scope(|scope| {
        // Dropped before the scope waits for its threads: they end because their pipes do.
        let mut child = child;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let give = move || stdin.map(|mut stdin| stdin.write_all(wasm));
        // A child that died does not read; how it died says more.
        let _given = thread::Builder::new().spawn_scoped(scope, give)?;
        let hear = move || read_at_most(stdout, PLUGIN_COMPILED_BYTES_MAX as u64 + 2);
        let answer = thread::Builder::new().spawn_scoped(scope, hear)?;
        let last_words =
            thread::Builder::new().spawn_scoped(scope, move || read_at_most(stderr, LAST_WORDS_BYTES_MAX))?;
        let ended = child.wait_at_most(wait, is_cancelled)?;
        let last_words = String::from_utf8_lossy(&joined(last_words)).into_owned();
        Ok(Talked { ended, answer: joined(answer), last_words })
    })
}

/// What can be read: a pipe that breaks ends there.
fn read_at_most(pipe: Option<impl Read>, max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(max).read_to_end(&mut bytes);
    }
    bytes
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What came of it.
fn judge(talked: Talked, bounds: Bounds, wait: Duration) -> Result<NativeCode, CompileError> {
    let Talked { ended, answer, last_words } = talked;
    match ended {
        Ended::Cancelled => Err(CompileError::Cancelled),
        Ended::Late => Err(CompileError::Stalled { wait_seconds: wait.as_secs() }),
        Ended::Itself(_) if answer.len() > PLUGIN_COMPILED_BYTES_MAX + 1 => {
            Err(CompileError::TooLarge { max: PLUGIN_COMPILED_BYTES_MAX as u64 })
        }
        Ended::Itself(status) if status.success() => read_answer(answer, bounds),
        Ended::Itself(status) => Err(cause_of_death(status, &last_words, bounds)),
    }
}

fn read_answer(mut answer: Vec<u8>, bounds: Bounds) -> Result<NativeCode, CompileError> {
    match answer.pop() {
        Some(IS_CODE) => Ok(believe(answer)),
        Some(IS_REFUSED) => Err(CompileError::Refused(String::from_utf8_lossy(&answer).into_owned())),
        Some(IS_OUT_OF_MEMORY) => Err(CompileError::Memory { max: bounds.memory_bytes }),
        _ => Err(CompileError::Broken("it gave no answer".to_owned())),
    }
}

#[expect(unsafe_code, reason = "the one place where native code comes from another process")]
fn believe(code: Vec<u8>) -> NativeCode {
    // SAFETY: the bytes came through a pipe whose other end only the child had, which is this very binary (not a file
    // that somebody may have put in its place), and which ended by itself and well after it had written the byte behind
    // them; so they are all that `precompile` returned there. The module it was given is hostile, and the compiler read
    // it: the child is believed as far as a compiler in this process would have been, which could do the same harm if
    // the module could take it over. The child is there for what a sound compiler may cost, not because it is less
    // trusted. wasmtime itself refuses code of another version, processor or setting.
    unsafe { NativeCode::from_bytes(code) }
}

/// Why a child that did not end well did so.
fn cause_of_death(status: ExitStatus, last_words: &str, bounds: Bounds) -> CompileError {
    let Bounds { memory_bytes, cpu_seconds } = bounds;
    let words = last_words.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    match signal_of(status) {
        Some(Signal::OutOfCpu) => CompileError::Cpu { max: cpu_seconds },
        _ if last_words.contains(OUT_OF_MEMORY) => CompileError::Memory { max: memory_bytes },
        Some(Signal::FromOutside) => CompileError::Ended(status.to_string()),
        Some(Signal::Fault) | None if words.is_empty() => CompileError::Broken(status.to_string()),
        Some(Signal::Fault) | None => CompileError::Broken(format!("{status}: {words}")),
    }
}

/// What a signal says that ended the child.
enum Signal {
    /// Its CPU time is over.
    OutOfCpu,
    /// Somebody else sent it: a person, or a system that is short of memory.
    FromOutside,
    /// It is the child's own fault.
    Fault,
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<Signal> {
    use std::os::unix::process::ExitStatusExt as _;

    use rustix::process::Signal as Of;
    let is = |signal: Of, number: i32| signal.as_raw() == number;
    Some(match status.signal()? {
        number if is(Of::XCPU, number) => Signal::OutOfCpu,
        number if [Of::KILL, Of::TERM, Of::INT, Of::HUP].iter().any(|signal| is(*signal, number)) => {
            Signal::FromOutside
        }
        _ => Signal::Fault,
    })
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> Option<Signal> {
    None
}

/// What the child does: compiles the module that it reads, and writes what came of it.
///
/// # Errors
/// When it cannot read or write.
pub(crate) fn compile(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut wasm = Vec::new();
    from.take(PLUGIN_BYTES_MAX as u64 + 1).read_to_end(&mut wasm)?;
    match precompile(&wasm) {
        Ok(code) => write_answer(to, code.as_bytes(), IS_CODE),
        Err(CompileError::Host(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
            write_answer(to, &[], IS_OUT_OF_MEMORY)
        }
        Err(CompileError::Refused(why)) => write_answer(to, why.as_bytes(), IS_REFUSED),
        Err(error) => write_answer(to, error.to_string().as_bytes(), IS_REFUSED),
    }
}

fn write_answer(to: &mut impl Write, bytes: &[u8], what: u8) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(&[what])?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LIMITS: Bounds = Bounds { memory_bytes: 64 << 20, cpu_seconds: 3 };

    /// What is made of a child that runs this script.
    fn outcome(script: &str, wait: Duration, is_cancelled: bool) -> Result<NativeCode, CompileError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Child::spawn(&mut command).unwrap();
        judge(talk(child, &vec![7; 1 << 20], wait, || is_cancelled).unwrap(), LIMITS, wait)
    }

    fn refusal(script: &str) -> CompileError {
        outcome(script, Duration::from_secs(600), false).unwrap_err()
    }

    #[test]
    fn every_way_to_die_is_a_typed_error_that_says_what_to_do() {
        for (script, words) in [
            ("kill -XCPU $$", "`transforms.compile_cpu_seconds` (3 s)"),
            (
                "echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$",
                "`transforms.compile_memory_bytes` (64MiB)",
            ),
            ("cat >/dev/null; printf '\\2'", "`transforms.compile_memory_bytes` (64MiB)"),
            ("kill -SEGV $$", "the compiler broke over the module"),
            ("echo 'it panicked' >&2; exit 101", "it panicked"),
            ("cat >/dev/null", "it gave no answer"),
            ("printf code", "it gave no answer"),
            ("printf 'no such thing\\1'", "module cannot be compiled: no such thing"),
            ("kill -KILL $$", "ended from outside"),
            ("kill -TERM $$", "ended from outside"),
            // Each of these would fill a pipe that nobody reads.
            ("yes x | head -c 100000000", "`plugin_compiled_bytes_max` (64MiB)"),
            ("yes x | head -c 1000000 >&2; exit 3", "exit status: 3"),
        ] {
            let error = refusal(script);
            assert!(error.to_string().contains(words), "`{script}` gave `{error}`");
            assert_eq!(error.is_retriable(), words == "ended from outside", "`{script}` gave `{error}`");
        }
    }

    #[test]
    fn a_child_that_does_not_end_is_no_fault_of_the_module() {
        let stalled = outcome("exec sleep 1000", Duration::from_millis(20), false).unwrap_err();
        assert!(matches!(stalled, CompileError::Stalled { .. }) && stalled.is_retriable(), "{stalled}");
        let cancelled = outcome("exec sleep 1000", Duration::from_secs(600), true).unwrap_err();
        assert!(matches!(cancelled, CompileError::Cancelled), "{cancelled}");
    }

    #[test]
    fn what_the_child_writes_the_parent_reads() {
        let mut written = Vec::new();
        compile(&mut &b"\0asm\x01\0\0\0"[..], &mut written).unwrap();
        let code = read_answer(written, LIMITS).unwrap();
        assert_eq!(code.as_bytes(), precompile(b"\0asm\x01\0\0\0").unwrap().as_bytes());
        let mut written = Vec::new();
        compile(&mut &b"\0asm\x01\0\0\0\x01"[..], &mut written).unwrap();
        assert!(matches!(read_answer(written, LIMITS), Err(CompileError::Refused(why)) if why.contains("unexpected")));
    }
}
