//! WASI preview 1 as guests meet it: every function is there, answers as documented whatever it is given, and harms
//! neither host nor guest; and a guest built with libc prints, reads its clock and draws numbers.

use std::fmt::Write as _;

use transform::{Pipeline, PluginHost, PluginHostOptions, Worker};

use crate::common::{TIME, batch, count_lines, deploy_with, host, numbered, run, stored, stored_values};

/// `examples/guests/c/stamp.c`.
const STAMP: &[u8] = include_bytes!("../../../../examples/guests/c/stamp.wasm");

const SUCCESS: u32 = 0;
const BAD_FILE: u32 = 8;
const FAULT: u32 = 21;
const INVALID: u32 = 28;
const NOT_SUPPORTED: u32 = 58;
const NOT_CAPABLE: u32 = 76;

/// Every function but `proc_exit`, which does not return: its parameters (`i` for i32, `I` for i64) and what it answers
/// when all of them are zeros, and when all of them are ones.
const FUNCTIONS: [(&str, &str, u32, u32); 45] = [
    ("args_get", "ii", SUCCESS, SUCCESS),
    ("args_sizes_get", "ii", SUCCESS, FAULT),
    ("clock_res_get", "ii", SUCCESS, FAULT),
    ("clock_time_get", "iIi", SUCCESS, FAULT),
    ("environ_get", "ii", SUCCESS, SUCCESS),
    ("environ_sizes_get", "ii", SUCCESS, FAULT),
    ("fd_advise", "iIIi", BAD_FILE, BAD_FILE),
    ("fd_allocate", "iII", BAD_FILE, BAD_FILE),
    ("fd_close", "i", BAD_FILE, BAD_FILE),
    ("fd_datasync", "i", BAD_FILE, BAD_FILE),
    ("fd_fdstat_get", "ii", BAD_FILE, BAD_FILE),
    ("fd_fdstat_set_flags", "ii", BAD_FILE, BAD_FILE),
    ("fd_fdstat_set_rights", "iII", BAD_FILE, BAD_FILE),
    ("fd_filestat_get", "ii", BAD_FILE, BAD_FILE),
    ("fd_filestat_set_size", "iI", BAD_FILE, BAD_FILE),
    ("fd_filestat_set_times", "iIIi", BAD_FILE, BAD_FILE),
    ("fd_pread", "iiiIi", BAD_FILE, BAD_FILE),
    ("fd_prestat_dir_name", "iii", BAD_FILE, BAD_FILE),
    ("fd_prestat_get", "ii", BAD_FILE, BAD_FILE),
    ("fd_pwrite", "iiiIi", BAD_FILE, BAD_FILE),
    ("fd_read", "iiii", BAD_FILE, BAD_FILE),
    ("fd_readdir", "iiiIi", BAD_FILE, BAD_FILE),
    ("fd_renumber", "ii", BAD_FILE, BAD_FILE),
    ("fd_seek", "iIii", BAD_FILE, BAD_FILE),
    ("fd_sync", "i", BAD_FILE, BAD_FILE),
    ("fd_tell", "ii", BAD_FILE, BAD_FILE),
    ("fd_write", "iiii", BAD_FILE, BAD_FILE),
    ("path_create_directory", "iii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_filestat_get", "iiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_filestat_set_times", "iiiiIIi", NOT_CAPABLE, NOT_CAPABLE),
    ("path_link", "iiiiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_open", "iiiiiIIii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_readlink", "iiiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_remove_directory", "iii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_rename", "iiiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_symlink", "iiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("path_unlink_file", "iii", NOT_CAPABLE, NOT_CAPABLE),
    ("poll_oneoff", "iiii", NOT_SUPPORTED, NOT_SUPPORTED),
    ("proc_raise", "i", NOT_SUPPORTED, NOT_SUPPORTED),
    ("random_get", "ii", SUCCESS, INVALID),
    ("sched_yield", "", SUCCESS, SUCCESS),
    ("sock_accept", "iii", NOT_CAPABLE, NOT_CAPABLE),
    ("sock_recv", "iiiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("sock_send", "iiiii", NOT_CAPABLE, NOT_CAPABLE),
    ("sock_shutdown", "ii", NOT_CAPABLE, NOT_CAPABLE),
];

/// The last addresses of a memory of 16 pages, and numbers that wrap around.
const EDGES: [i64; 5] = [0x10_0000, 0xf_ffff, 0x7fff_ffff, -0x8000_0000, -8];

/// Where vectors for `fd_write` lie: a good one, one whose end wraps, one outside of the memory.
const GOOD: i64 = 0x100;
const WRAPS: i64 = 0x108;
const OUTSIDE: i64 = 0x110;

/// What is particular to the functions that do something.
const PARTICULAR: [(&str, &[i64], u32); 19] = [
    ("fd_write", &[1, GOOD, 1, 0x200], SUCCESS),
    ("fd_write", &[2, GOOD, 1, 0x200], SUCCESS),
    ("fd_write", &[0, GOOD, 1, 0x200], BAD_FILE),
    ("fd_write", &[3, GOOD, 1, 0x200], BAD_FILE),
    ("fd_write", &[1, WRAPS, 1, 0x200], FAULT),
    ("fd_write", &[1, OUTSIDE, 1, 0x200], FAULT),
    ("fd_write", &[1, GOOD, 1, -2], FAULT),
    ("fd_write", &[1, -8, 2, 0x200], FAULT),
    ("fd_write", &[1, 0xf_fffc, 1, 0x200], FAULT),
    ("fd_write", &[1, 0, 1_025, 0x200], INVALID),
    ("fd_write", &[1, 0, -1, 0x200], INVALID),
    ("fd_write", &[1, -1, 0, 0x200], SUCCESS),
    ("fd_fdstat_get", &[1, 0x300], SUCCESS),
    ("fd_fdstat_get", &[2, 0xf_fff0], FAULT),
    ("random_get", &[0xf_ffff, 1], SUCCESS),
    ("random_get", &[0xf_ffff, 2], FAULT),
    ("random_get", &[0, 0x10_0000], SUCCESS),
    ("random_get", &[0, 0x10_0001], INVALID),
    ("clock_time_get", &[0, 0, 0xf_fff9], FAULT),
];

/// A guest that makes these calls for every batch, with a record for each: its new value is the call's answer.
fn caller(calls: &[(&str, Vec<i64>)]) -> Vec<u8> {
    let (mut imports, mut body) = (String::new(), String::new());
    for (name, signature, ..) in FUNCTIONS {
        let params: String = signature.chars().map(|letter| if letter == 'I' { " i64" } else { " i32" }).collect();
        let item = format!("(func ${name} (param{params}) (result i32))");
        writeln!(imports, "(import \"wasi_snapshot_preview1\" \"{name}\" {item})").unwrap();
    }
    let answers = 0x2_0000;
    for (index, (name, args)) in calls.iter().enumerate() {
        let signature = FUNCTIONS.iter().find(|function| function.0 == *name).unwrap().1;
        let types = signature.chars().map(|letter| if letter == 'I' { "i64" } else { "i32" });
        let args: String = types.zip(args).map(|(kind, arg)| format!("({kind}.const {arg})")).collect();
        // In a local first: a call may write anywhere, over what others answered, too.
        writeln!(body, "(local.set $answer{index} (call ${name} {args}))").unwrap();
    }
    let entries = answers + 4 * calls.len();
    let bitmap = abi::output::bitmap_len(calls.len() as u32);
    let patches = 0x4_0000 + 8 + bitmap;
    for index in 0..calls.len() {
        let (answer, patch) = (answers + 4 * index, patches + 8 * index);
        writeln!(body, "(i32.store (i32.const {answer}) (local.get $answer{index}))").unwrap();
        writeln!(body, "(i32.store (i32.const {patch}) (i32.const {answer}))").unwrap();
        writeln!(body, "(i32.store offset=4 (i32.const {patch}) (i32.const 4))").unwrap();
    }
    assert!(entries < 0x4_0000);
    let length = 8 + bitmap + 8 * calls.len();
    let locals: String = (0..calls.len()).map(|index| format!("(local $answer{index} i32)")).collect();
    let count = calls.len();
    let text = format!(
        r#"(module {imports}
            (memory (export "memory") 16)
            (data (i32.const {GOOD}) "\00\04\00\00\03\00\00\00\f0\ff\ff\ff\ff\ff\ff\ff\00\00\10\00\01\00\00\00")
            (data (i32.const 0x400) "hi\n")
            (func (export "weir_abi_version") (result i32) (i32.const 1))
            (func (export "weir_alloc") (param i32) (result i32) (i32.const 0x60000))
            (func (export "weir_process") (param i32 i32) (result i64) {locals}
                {body}
                (i32.store (i32.const 0x40000) (i32.const 3))
                (i32.store (i32.const 0x40004) (i32.const {count}))
                (memory.fill (i32.const 0x40008) (i32.const 255) (i32.const {bitmap}))
                (i64.or (i64.shl (i64.const 0x40000) (i64.const 32)) (i64.const {length}))))"#
    );
    wat::parse_str(text).unwrap()
}

/// What the calls answer.
fn answers(calls: &[(&str, Vec<i64>)]) -> Vec<u32> {
    let host = host();
    let transform = deploy_with(&host, &caller(calls), |spec| spec.limits.deadline_ms = 5_000).unwrap();
    let output = run(&mut Worker::new(&host), &Pipeline::new(vec![transform]), &numbered(calls.len())).unwrap();
    assert_eq!(output.dead_letters, [], "the guest lives on");
    let value = |record: protocol::Record| u32::from_le_bytes(*record.value.unwrap().first_chunk().unwrap());
    stored(&output).into_iter().map(|(_, record)| value(record)).collect()
}

fn assert_answers(calls: &[(&str, Vec<i64>)], expected: impl Fn(usize) -> Option<u32>) {
    let found = answers(calls);
    assert_eq!(found.len(), calls.len());
    for (index, (name, args)) in calls.iter().enumerate() {
        if let Some(expected) = expected(index) {
            assert_eq!(found[index], expected, "`{name}` with {args:x?}");
        }
    }
}

fn all_with(argument: i64) -> Vec<(&'static str, Vec<i64>)> {
    FUNCTIONS.iter().map(|(name, signature, ..)| (*name, vec![argument; signature.len()])).collect()
}

#[test]
fn every_function_of_wasi_answers_as_documented() {
    assert_answers(&all_with(0), |index| Some(FUNCTIONS[index].2));
    assert_answers(&all_with(-1), |index| Some(FUNCTIONS[index].3));
    let particular: Vec<_> = PARTICULAR.iter().map(|(name, args, _)| (*name, args.to_vec())).collect();
    assert_answers(&particular, |index| Some(PARTICULAR[index].2));
}

#[test]
fn wasi_takes_any_numbers() {
    for edge in EDGES {
        // What is refused for its kind is refused whatever it is given; what works is in its own list.
        let refuses = |index: usize| Some(FUNCTIONS[index].2).filter(|errno| *errno != SUCCESS);
        assert_answers(&all_with(edge), refuses);
    }
}

#[test]
fn the_clock_works_before_the_first_record() {
    // Go's runtime ends the guest when it does not.
    let guest = r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
        (memory (export "memory") 16)
        (func (export "_initialize")
            (if (call $time (i32.const 1) (i64.const 0) (i32.const 8)) (then unreachable))
            (if (i64.eqz (i64.load (i32.const 8))) (then unreachable)))
        (func (export "weir_abi_version") (result i32) (i32.const 1))
        (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "weir_process") (param i32 i32) (result i64) (i64.const -1)))"#;
    host().load(&wat::parse_str(guest).unwrap()).unwrap();
}

/// With a cache that outlives the test: an unoptimised compiler takes a while for libc.
fn host_with_cache() -> PluginHost {
    let options = PluginHostOptions { instances_max: 8, ..PluginHostOptions::new(env!("CARGO_TARGET_TMPDIR")) };
    PluginHost::new(&options).unwrap()
}

#[test]
fn a_guest_in_c_prints_and_asks_for_time_and_chance() {
    let host = host_with_cache();
    let transform = deploy_with(&host, STAMP, |spec| spec.limits.deadline_ms = 1_000).unwrap();
    let pipeline = Pipeline::new(vec![transform]);
    let mut worker = Worker::new(&host);
    let mut stamped = Vec::new();
    let lines = count_lines(|| {
        stamped = stored_values(&run(&mut worker, &pipeline, &batch(&[b"a", b"", b"ccc"])).unwrap());
    });
    assert_eq!(lines, 1, "a line comes out when it is printed, not when the instance ends");
    let mut chances = Vec::new();
    for (index, (value, text)) in stamped.iter().zip(["a", "", "ccc"]).enumerate() {
        let [time, chance, rest] = value.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("`{value}`") };
        assert_eq!((time.parse(), rest), (Ok(TIME + 10 * index as i64), text));
        chances.push(u32::from_str_radix(chance, 16).unwrap());
    }
    chances.sort_unstable();
    chances.dedup();
    assert_eq!(chances.len(), 3, "{chances:x?}");
    // In a batch of its own, on a fresh instance, the first record is stamped alike.
    let alone = run(&mut Worker::new(&host), &pipeline, &batch(&[b"a"])).unwrap();
    assert_eq!(stored_values(&alone), stamped[..1]);
}
