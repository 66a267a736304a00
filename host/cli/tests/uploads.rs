//! Hostile uploads to the real binary: a bomb costs a clear error, and nothing of what is not accepted is left: no file, no
//! process. How the compiler's process is bounded is read from the system while it runs.
#![cfg(target_os = "linux")]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use common::{Broker, Place};

/// How often a test looks for something that comes to be so, and how often at most: only one that hangs sees the end.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: usize = 24_000;

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("it never came about: {what}");
}

/// A broker with these settings of transforms, which gives up soon on a client that is gone.
fn serve(place: &Place, transforms: &str) -> Broker {
    let config = place.file("weir.toml", format!("[transport]\nidle_ms_max = 2000\n[transforms]\n{transforms}\n"));
    place.serve_with(&["--quic", "127.0.0.1:0", "--config", &config])
}

/// A module that takes long to compile: functions of many loops, each within every limit.
fn bomb(place: &Place, functions: usize) -> String {
    // Twice a local's value, around again while it is not zero.
    let once: Vec<u8> = (0..200_u8).flat_map(|local| loop_over(local % 100, (local % 13) * 7)).collect();
    let body = [&[1, 100, 0x7e][..], &once.repeat(30), &[0x0b]].concat();
    let names: [(&str, [u8; 2]); 4] =
        [("memory", [2, 0]), ("weir_abi_version", [0, 0]), ("weir_alloc", [0, 1]), ("weir_process", [0, 2])];
    let exports = names.iter().flat_map(|(name, what)| [&[name.len() as u8][..], name.as_bytes(), what].concat());
    let exports = [vec![4], exports.collect()].concat();
    let types = b"\x04\x60\x00\x01\x7f\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7f\x01\x7e\x60\x00\x00".to_vec();
    let functions_of = [leb128(functions + 3), vec![0, 1, 2], vec![3; functions]].concat();
    let body = [leb128(body.len()), body].concat();
    let first = b"\x04\x00\x41\x01\x0b\x04\x00\x41\x08\x0b\x04\x00\x42\x7f\x0b".to_vec();
    let code = [leb128(functions + 3), first, body.repeat(functions)].concat();
    let sections = [(1, types), (3, functions_of), (5, vec![1, 0, 1]), (7, exports), (10, code)];
    let sections = sections.into_iter().flat_map(|(id, bytes)| [vec![id], leb128(bytes.len()), bytes].concat());
    let wasm: Vec<u8> = b"\0asm\x01\0\0\0".iter().copied().chain(sections).collect();
    place.file("bomb.wasm", wasm)
}

/// `loop; a = a + b; br_if a; end`
fn loop_over(a: u8, b: u8) -> Vec<u8> {
    vec![0x03, 0x40, 0x20, a, 0x20, b, 0x7c, 0x22, a, 0xa7, 0x0d, 0, 0x0b]
}

fn leb128(number: usize) -> Vec<u8> {
    let mut rest = number;
    let mut bytes = Vec::new();
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// The compilers that this broker runs, as folders of `/proc`.
fn compilers(broker: u32) -> Vec<PathBuf> {
    let children = fs::read_dir(format!("/proc/{broker}/task")).into_iter().flatten().flatten().flat_map(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().map(|child| Path::new("/proc").join(child)).collect::<Vec<_>>()
    });
    children.collect()
}

fn is_gone(process: &Path) -> Option<()> {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    (status.is_empty() || status.contains("State:\tZ")).then_some(())
}

/// Files of plugins and of their compiled forms.
fn files(place: &Place) -> BTreeSet<String> {
    let plugins = place.data_dir().join("plugins");
    let names = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name != "compiled" && name != "key")
    };
    names(plugins.clone()).chain(names(plugins.join("compiled"))).collect()
}

/// Begins to upload, and waits until its module is being compiled.
fn begin(place: &Place, broker: &Broker, module: &str) -> (Child, PathBuf) {
    let mut client = place.command(&["plugin", "upload", "bomb", module]);
    let client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let id = broker.id();
    (client, until("a compiler runs", || compilers(id).pop()))
}

fn takes_a_plugin(place: &Place, broker: Broker) {
    // Of a size that compiles in no time, however slow the build is that does it.
    place.ok(&["plugin", "upload", "small", &bomb(place, 0)]);
    assert_eq!(files(place).len(), 2, "{:?}", files(place));
    assert_eq!(compilers(broker.id()), Vec::<PathBuf>::new());
    assert_eq!(broker.terminate(), 0);
}

#[test]
fn a_bomb_costs_a_clear_error_and_the_broker_goes_on() {
    for (transforms, limit) in [
        ("compile_cpu_seconds = 1", "`transforms.compile_cpu_seconds` (1 s)"),
        ("compile_memory_bytes = 67_108_864\ncompile_cpu_seconds = 600", "`transforms.compile_memory_bytes` (64MiB)"),
    ] {
        let place = Place::new();
        let broker = serve(&place, transforms);
        let module = bomb(&place, 40);
        place.run(&["plugin", "upload", "bomb", &module]).refused(6, &[limit, "opt-level", "raise it"]);
        assert_eq!((files(&place), compilers(broker.id())), (BTreeSet::new(), Vec::new()));
        takes_a_plugin(&place, broker);
    }
}

#[test]
fn the_compiler_is_bounded_and_has_nothing_of_ours() {
    let place = Place::new();
    let broker = serve(&place, "compile_cpu_seconds = 500");
    let (mut client, compiler) = begin(&place, &broker, &bomb(&place, 40));
    let limits = until("it is bounded", || {
        let limits = fs::read_to_string(compiler.join("limits")).unwrap();
        limits.lines().any(|line| line.starts_with("Max file size") && line.contains(" 0 ")).then_some(limits)
    });
    for (name, limit) in [("Max cpu time", "500"), ("Max data size", "536870912"), ("Max file size", "0")] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(limit), "{line}");
    }
    let environment = fs::read(compiler.join("environ")).unwrap();
    let names = environment.split(|byte| *byte == 0).filter(|text| !text.is_empty());
    assert!(names.clone().count() == 2 && names.clone().all(|name| name.starts_with(b"MIMALLOC_")));
    // What this test itself was started with goes on to all that it starts.
    let open = |process: &Path| -> Vec<PathBuf> {
        let links = fs::read_dir(process.join("fd")).unwrap().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).collect()
    };
    let before = open(Path::new("/proc/self"));
    let given: Vec<PathBuf> = open(&compiler).into_iter().filter(|to| !before.contains(to)).collect();
    assert!(given.len() == 3 && given.iter().all(|to| to.to_string_lossy().starts_with("pipe:")), "{given:?}");

    // It ends with the broker, whatever ended that.
    broker.kill();
    until("the compiler ends with its broker", || is_gone(&compiler));
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(files(&place), BTreeSet::new());
}

#[test]
fn an_upload_whose_client_is_gone_is_cancelled() {
    let place = Place::new();
    let broker = serve(&place, "compile_cpu_seconds = 500");
    let (mut client, compiler) = begin(&place, &broker, &bomb(&place, 40));
    // Meanwhile others are served.
    place.ok(&["topic", "create", "clicks"]);
    client.kill().unwrap();
    client.wait().unwrap();
    until("the compiler is ended", || is_gone(&compiler));
    takes_a_plugin(&place, broker);
}

#[test]
fn a_module_over_which_the_compiler_breaks_is_refused() {
    let place = Place::new();
    let broker = serve(&place, "compile_cpu_seconds = 500");
    let module = bomb(&place, 40);
    let mut client = place.command(&["plugin", "upload", "bomb", &module]);
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = broker.id();
    let compiler = until("a compiler runs", || compilers(id).pop());
    let pid = compiler.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(std::process::Command::new("kill").args(["-ABRT", &pid]).status().unwrap().success());
    let said = String::from_utf8(client.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("the compiler broke over the module") && said.contains("SIGABRT"), "{said}");
    takes_a_plugin(&place, broker);
}
