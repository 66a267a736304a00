//! Attacks with what is returned: pointers that lie, lengths that wrap, records that are none, and far too many.

use abi::{
    HOST_CODES_START,
    HostCode::{self, AllocRefused, BadOutput, BatchFailed, RecordTooLarge},
    Span,
    output::{FailureEntry, Patch, RecordEntry, encode_header, encode_patch, kind},
};

use super::{
    Attack, Class,
    build::{Guest, KEEP},
};

/// Where an output that is data lies.
const AT: u32 = 0x2_0000;

/// Where what it points to lies.
const BODY_AT: u32 = 0x6_0000;

/// A record's body: attributes, timestamp and offset deltas, no key, a value of two bytes, no headers.
const BODY: [u8; 8] = [0, 0, 0, 1, 4, b'o', b'k', 0];

pub(super) fn attacks() -> Vec<Attack> {
    [spans(), buffers(), shapes(), records(), patches(), failures(), floods()].into_iter().flatten().collect()
}

fn fails(name: &'static str, guest: &Guest, code: HostCode) -> Attack {
    Attack::fails(name, Class::Output, guest.build(), code)
}

/// The packed span itself.
fn spans() -> Vec<Attack> {
    let answer = |name, packed: &str, code| fails(name, &Guest::new().process(&format!("(i64.const {packed})")), code);
    let moved = "(local.set $a (i32.shl (memory.grow (i32.const 4)) (i32.const 16)))
        (i32.store offset=4 (local.get $a) (i32.load offset=4 (local.get $ptr)))
        (i64.or (i64.shl (i64.extend_i32_u (local.get $a)) (i64.const 32)) (i64.const 8))";
    let past_refusal = "(drop (memory.grow (i32.const 0x7000)))
        (i64.or (i64.shl (i64.extend_i32_u (i32.shl (memory.size) (i32.const 16))) (i64.const 32)) (i64.const 8))";
    vec![
        answer("an output beyond the memory", "0x0010000000000008", BadOutput),
        answer("an output whose end wraps in 32 bits", "0x7ffffff000000020", BadOutput),
        answer("an output of a GiB", "0x0000000040000000", BadOutput),
        answer("an output of 4 GiB", "0x00000000ffffffff", BadOutput),
        answer("an output of no bytes", "0", BadOutput),
        answer("an output of half a header", "4", BadOutput),
        answer("all batches failed", "-1", BatchFailed),
        answer("the most negative answer", "-9223372036854775808", BatchFailed),
        Attack::harmless("an output in memory that moved", Class::Output, Guest::new().process(moved).build())
            .with_batches(5),
        fails("an output in memory that was refused", &Guest::new().process(past_refusal), BadOutput),
    ]
}

/// What `weir_alloc` returns.
fn buffers() -> Vec<Attack> {
    let alloc = |name, body: &str, code| fails(name, &Guest::new().alloc(body), code);
    let moving = "(global.set $next (i32.add (global.get $next) (i32.const 4097))) (global.get $next)";
    let moving = Guest::new().more("(global $next (mut i32) (i32.const 65536))").alloc(moving);
    vec![
        alloc("a buffer refused", "(i32.const 0)", AllocRefused),
        alloc("a buffer at the end of the addresses", "(i32.const -1)", BadOutput),
        alloc("a buffer that is too short by one", "(i32.sub (i32.const 1048577) (local.get $len))", BadOutput),
        Attack::harmless("a buffer that moves", Class::Output, moving.build()).with_batches(50),
        // The host's bytes lie where the guest's decisions come: its own harm.
        fails(
            "a buffer that lies in the output",
            &Guest::new().alloc("(i32.const 4)").answer_at(8, &[9; 64]),
            BadOutput,
        ),
    ]
}

/// The head of the output.
fn shapes() -> Vec<Attack> {
    let answer = |name, bytes: &[u8]| fails(name, &Guest::new().answer_at(AT, bytes), BadOutput);
    vec![
        answer("decisions of an unknown kind", &encode_header(9, 4)),
        answer("decisions about more records than there are", &encode_header(kind::KEEP_ALL, 1_000_000)),
        answer("a bitmap that is not there", &encode_header(kind::BITMAP, 1)),
        answer("sixteen million records that are not there", &encode_header(kind::RECORDS, 1 << 24)),
        answer("a count of all ones", &encode_header(kind::RECORDS, u32::MAX)),
        answer("records with bytes behind them", &[&encode_header(kind::RECORDS, 0)[..], &[1, 2, 3]].concat()),
    ]
}

fn entry(source: u32, target: u16, address: u32, length: u32) -> RecordEntry {
    RecordEntry { source, target, flags: 0, body: Span { address, length } }
}

fn of_entries(entries: &[RecordEntry]) -> Vec<u8> {
    let head = encode_header(kind::RECORDS, entries.len() as u32);
    entries.iter().fold(head.to_vec(), |output, entry| [&output[..], &entry.encode()].concat())
}

/// Whole records.
fn records() -> Vec<Attack> {
    let answer = |name, entries: &[RecordEntry], body: &[u8], code| {
        fails(name, &Guest::new().answer_at(AT, &of_entries(entries)).data(BODY_AT, body), code).with_one_record()
    };
    let body = |name, body: &[u8]| answer(name, &[entry(0, 0, BODY_AT, body.len() as u32)], body, BadOutput);
    let good = entry(0, 0, BODY_AT, BODY.len() as u32);
    vec![
        answer("records from a source that there is not", &[entry(77, 0, BODY_AT, 8)], &BODY, BadOutput),
        answer("records whose sources descend", &[entry(1, 0, BODY_AT, 8), good], &BODY, BadOutput),
        answer("records for a target nobody declared", &[good, entry(0, 1, BODY_AT, 8)], &BODY, BadOutput),
        answer("records for the last target there could be", &[entry(0, u16::MAX, BODY_AT, 8)], &BODY, BadOutput),
        answer("records with flags of a later version", &[RecordEntry { flags: 1, ..good }], &BODY, BadOutput),
        answer("a record beyond the memory", &[entry(0, 0, 0xffff_fff0, 8)], &BODY, BadOutput),
        answer("a record whose end wraps", &[entry(0, 0, 0xffff_fff0, 0xffff_ffff)], &BODY, BadOutput),
        answer("a record that is the output itself", &[entry(0, 0, AT, 24)], &BODY, BadOutput),
        body("a record of no bytes", &[]),
        body("a record of one byte", &[0]),
        body("a record that is cut off", &BODY[..6]),
        body("a record with bytes behind it", &[&BODY[..], &[0, 0]].concat()),
        body("a number that does not end", &[0xff; 40]),
        body("a key longer than the record", &[0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
        body("a length below -1", &[0, 0, 0, 1, 3, 0, 0, 0]),
        body("a thousand million headers", &[0, 0, 0, 1, 1, 0x80, 0xa8, 0xd6, 0xb9, 0x07]),
        body("a header without a name", &[0, 0, 0, 1, 1, 2, 1, 1]),
    ]
}

fn patches() -> Vec<Attack> {
    let answer = |name, span: Span, code| {
        let output = [&encode_header(kind::PATCH, 1)[..], &[1, 0, 0, 0], &encode_patch(Patch::Value(span))];
        fails(name, &Guest::new().answer_at(AT, &output.concat()), code).with_one_record()
    };
    let mut itself = answer("a value that is the output itself", Span { address: AT, length: 20 }, BadOutput);
    itself.end = super::End::Fails(Vec::new());
    vec![
        itself,
        answer("a value beyond the memory", Span { address: 0x10_0000, length: 1 }, BadOutput),
        answer("a value whose end wraps", Span { address: 0xffff_ffff, length: 0xffff_fff0 }, BadOutput),
        answer("a value of a GiB", Span { address: 0, length: 1 << 30 }, BadOutput),
        larger_than_a_record(),
        larger_than_all_outputs(),
    ]
}

/// A value of more than a record may have, all of it inside the memory.
fn larger_than_a_record() -> Attack {
    let patch = encode_patch(Patch::Value(Span { address: 0, length: (1 << 20) + 1 }));
    let output = [&encode_header(kind::PATCH, 1)[..], &[1, 0, 0, 0], &patch].concat();
    let guest = Guest::new().memory("(memory (export \"memory\") 32)").answer_at(AT, &output);
    fails("a value larger than a record", &guest, RecordTooLarge).with_one_record()
}

/// Sixty-four records, all of which are the same 900,000 zeros: more than a batch may return.
fn larger_than_all_outputs() -> Attack {
    let head = [0, 0, 0, 1, 0xc0, 0xee, 0x6d];
    let length = head.len() as u32 + 900_000 + 1;
    let entries = of_entries(&[entry(0, 0, BODY_AT, length); 64]);
    let guest = Guest::new().memory("(memory (export \"memory\") 32)").answer_at(AT, &entries).data(BODY_AT, &head);
    fails("the same large record sixty-four times", &guest, BadOutput).with_one_record()
}

fn failures() -> Vec<Attack> {
    let table = |entries: &[FailureEntry]| {
        let mut output = encode_header(kind::DROP_ALL, 1).to_vec();
        output.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        entries.iter().for_each(|entry| output.extend_from_slice(&entry.encode()));
        output
    };
    let failure = |record, code, address, length| FailureEntry { record, code, text: Span { address, length } };
    let answer = |name, output: &[u8], code: u16| {
        let mut attack = fails(name, &Guest::new().answer_at(AT, output), BadOutput).with_one_record();
        attack.end = super::End::Fails(vec![(0, code)]);
        attack
    };
    let bad = BadOutput as u16;
    vec![
        answer("a failure of a record that there is not", &table(&[failure(1, 1, 0, 0)]), bad),
        answer("one record that fails twice", &table(&[failure(0, 1, 0, 0), failure(0, 2, 0, 0)]), bad),
        answer("more failures than there are", &[&encode_header(kind::DROP_ALL, 1)[..], &[255; 4]].concat(), bad),
        answer("a failure that pretends to be the host's", &table(&[failure(0, 0xff00, 0, 0)]), HOST_CODES_START - 1),
        answer("a failure whose text lies nowhere", &table(&[failure(0, 7, 0xffff_ff00, 0xffff_ffff)]), 7),
        answer("a failure whose text is all of the memory", &table(&[failure(0, 7, 0, 16 << 16)]), 7),
    ]
}

/// Outputs that are well formed, and far too many.
fn floods() -> Vec<Attack> {
    // RECORDS, `$b` of them, all of source 0 and of the body at BODY_AT.
    let flood = |count: u32, length: usize| {
        format!(
            "(i32.store (i32.const 0x100000) (i32.const 4))
            (i32.store (i32.const 0x100004) (i32.const {count}))
            (local.set $a (i32.const 0x100008))
            (loop $next
                (i64.store (local.get $a) (i64.const 0))
                (i32.store offset=8 (local.get $a) (i32.const {BODY_AT}))
                (i32.store offset=12 (local.get $a) (i32.const {length}))
                (local.set $a (i32.add (local.get $a) (i32.const 16)))
                (br_if $next (i32.lt_u (local.get $a) (i32.const {end}))))
            (i64.const {span})",
            end = 0x10_0008 + u64::from(count) * 16,
            span = (0x10_0000_i64 << 32) | (8 + i64::from(count) * 16),
        )
    };
    let guest = |pages: u32, process: &str, body: &[u8]| {
        Guest::new().memory(&format!("(memory (export \"memory\") {pages})")).data(BODY_AT, body).process(process)
    };
    let large = [&[0, 0, 0, 1, 0x80, 0x80, 0x0a][..], &[b'x'; 80 << 10], &[0]].concat();
    let roomy = |attack: Attack| {
        attack.with_one_record().with_limits(|limits| {
            limits.memory_bytes = 256 << 20;
            limits.deadline_ms = 2_000;
        })
    };
    let ignored = format!("(drop (i32.const 0)) {KEEP}");
    vec![
        roomy(fails("ten million records", &guest(16, &grown(&flood(10_000_000, 8)), &BODY), BadOutput)),
        roomy(fails("more records than a batch may have", &guest(512, &flood(1_100_000, 8), &BODY), BadOutput)),
        roomy(fails("a batch larger than a batch may be", &guest(32, &flood(100, large.len()), &large), BadOutput)),
        // As many decisions as it likes may lie in its memory, as long as it names the right ones.
        Attack::harmless("a memory full of decisions", Class::Output, guest(16, &ignored, &[4; 4096]).build()),
    ]
}

/// The same after growing to what a hundred and sixty MiB of entries take.
fn grown(process: &str) -> String {
    format!("(drop (memory.grow (i32.const 2600))) {process}")
}
