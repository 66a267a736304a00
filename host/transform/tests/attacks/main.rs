//! Every attack of the [`catalogue`] against the engine's public face, one after the other in one process: each comes to
//! the outcome it must, in bounded CPU time, gives back its memory, and a good neighbour on the same host answers
//! rightly before, between and after.
//!
//! `cargo test -p weir-transform --test attacks -- --nocapture` prints what each came to and how long it took.

mod catalogue;
mod clock;
mod resident;

use std::{sync::Arc, time::Duration};

use abi::HostCode;
use catalogue::{Attack, End, Refusal};
use clock::Stopwatch;
use protocol::{
    BatchBuilder, Compression, Offset, PluginName, Record, RecordBatch, TopicName, TransformName, TransformSpec,
    limits::RECORD_BYTES_MAX,
};
use transform::{
    Pipeline, PipelineInput, PipelineOutput, Plugin, PluginError, PluginHost, PluginHostOptions, Transform,
    TransformError, Worker,
};

/// What an upload may take of the CPU: its compilation in a build without optimisation, and the deadline of its trial.
const UPLOAD_CPU_MAX: Duration = Duration::from_secs(20);

/// What a batch may take beside its deadlines: what the host reads, checks and writes, in a build without optimisation.
const BATCH_CPU_MAX: Duration = Duration::from_secs(6);

#[test]
fn every_attack_ends_as_it_must_and_harms_nobody() {
    let host = PluginHost::new(&PluginHostOptions { instances_max: 6, ..PluginHostOptions::without_cache() }).unwrap();
    let mut neighbour = Neighbour::new(&host);
    let attacks = catalogue::all();
    let names: std::collections::BTreeSet<_> = attacks.iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), attacks.len(), "no two have one name");
    println!("{:<12} {:<62} {:>9} {:>9}  came to", "class", "attack", "cpu", "wall");
    let mut succeeded = Vec::new();
    for attack in &attacks {
        let watch = Stopwatch::start();
        // One that succeeds is told at the end, after all others had their try.
        let came_to = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&host, attack, &mut neighbour)));
        let (cpu, wall) = (watch.cpu().as_millis(), watch.wall().as_millis());
        let came_to = came_to.unwrap_or_else(|_| {
            succeeded.push(attack.name);
            "SUCCEEDED".to_owned()
        });
        println!("{:<12} {:<62} {cpu:>6} ms {wall:>6} ms  {came_to:.120}", format!("{:?}", attack.class), attack.name);
    }
    assert!(succeeded.is_empty(), "attacks that succeeded: {succeeded:?}");
}

/// Carries out one attack, and returns what it came to, for people.
fn run(host: &PluginHost, attack: &Attack, neighbour: &mut Neighbour) -> String {
    let name = attack.name;
    let watch = Stopwatch::start();
    let uploaded = host.load(&attack.wasm);
    assert!(watch.cpu() < UPLOAD_CPU_MAX, "`{name}` took {:?} to upload", watch.cpu());
    neighbour.assert_answers(name);
    let plugin = match (uploaded, &attack.end) {
        (Err(error), End::Refused(refusal, words)) => {
            let text = text_of(&error);
            assert_eq!(refusal_of(&error), Some(*refusal), "`{name}`: {text}");
            assert!(text.contains(words), "`{words}` is not in `{text}` of `{name}`");
            assert!(!text.chars().any(char::is_control), "`{name}` reaches the terminal: {text:?}");
            return text;
        }
        (Err(error), end) => panic!("`{name}` was refused ({}), not {end:?}", text_of(&error)),
        (Ok(_), End::Refused(refusal, _)) => panic!("`{name}` was taken, not refused for {refusal:?}"),
        (Ok(plugin), _) => plugin,
    };
    let transform = match (deploy(host, &plugin, attack), &attack.end) {
        (Err(TransformError::Start(fault)), End::NotDeployed(code)) => {
            assert_eq!(fault.code, *code, "`{name}`: {fault}");
            return format!("not deployed: {fault}");
        }
        (Err(error), end) => panic!("`{name}` was not deployed ({}), not {end:?}", text_of(&error)),
        (Ok(_), End::NotDeployed(code)) => panic!("`{name}` was deployed, in place of {code:?}"),
        (Ok(transform), _) => transform,
    };
    let End::Fails(failed) = &attack.end else { unreachable!("the other two ends are above") };
    let pipeline = Pipeline::new(vec![Arc::new(transform)]);
    // The compiler's memory is another matter: it is a child's in a broker.
    let before = resident::bytes();
    let mut came_to = String::new();
    for _ in 0..attack.batches {
        came_to = run_batch(&mut neighbour.worker, &pipeline, attack, failed);
        neighbour.assert_answers(name);
    }
    assert_is_counted(&pipeline, name, failed);
    drop(pipeline);
    resident::assert_is_back(before, name);
    came_to
}

/// What stopped it is among what the transform tells of itself.
fn assert_is_counted(pipeline: &Pipeline, name: &str, failed: &[(u32, u16)]) {
    let stats = pipeline.stages()[0].stats();
    let of = |code: HostCode| failed.iter().any(|(_, failed)| *failed == code as u16);
    assert_eq!(stats.deadline_hits > 0, of(HostCode::Deadline), "`{name}`: {stats:?}");
    assert!(stats.traps > 0 || !of(HostCode::Trap), "`{name}`: {stats:?}");
}

/// Gives the attack its batch: these records fail, the others are kept.
fn run_batch(worker: &mut Worker, pipeline: &Pipeline, attack: &Attack, failed: &[(u32, u16)]) -> String {
    let values: Vec<&[u8]> = attack.records.iter().map(Vec::as_slice).collect();
    let watch = Stopwatch::start();
    let output = process(worker, pipeline, &batch(&values));
    // The call that fails, the calls that look for who is to blame, and the one that the budget ends in.
    let may_spend = 3 * attack.limits.deadline_ms + attack.limits.failure_ms;
    let most = Duration::from_millis(may_spend.into()) + BATCH_CPU_MAX;
    assert!(watch.cpu() < most, "`{}` took {:?} for a batch", attack.name, watch.cpu());
    let letters: Vec<_> = output.dead_letters.iter().map(|letter| (letter.source, letter.code)).collect();
    let said = output.dead_letters.first().map_or(String::new(), |letter| letter.text.clone());
    assert_eq!(letters, failed, "`{}`: {said}", attack.name);
    assert_eq!(output.books.kept, (values.len() - failed.len()) as u64, "`{}`: {:?}", attack.name, output.books);
    match output.dead_letters.first() {
        Some(letter) => format!("{}: {}", code_name(letter.code), letter.text),
        None => "kept".to_owned(),
    }
}

fn deploy(host: &PluginHost, plugin: &Plugin, attack: &Attack) -> Result<Transform, TransformError> {
    let (name, of) = (TransformName::new("attack").unwrap(), PluginName::new("attack").unwrap());
    let spec = TransformSpec { limits: attack.limits, ..TransformSpec::new(name, of, plugin.hash()) };
    Transform::new(host, plugin, spec)
}

/// A transform that does its work, on the same host and the same worker as the attacks.
struct Neighbour {
    worker: Worker,
    pipeline: Pipeline,
}

impl Neighbour {
    fn new(host: &PluginHost) -> Neighbour {
        let wasm = wat::parse_str(include_str!("../guests/moody.wat").replace("$CURSOR", "")).unwrap();
        let plugin = host.load(&wasm).unwrap();
        let good = Attack {
            name: "neighbour",
            class: catalogue::Class::Cpu,
            wasm,
            limits: protocol::TransformLimits::default(),
            records: Vec::new(),
            batches: 1,
            end: End::Fails(Vec::new()),
        };
        let transform = deploy(host, &plugin, &good).unwrap();
        Neighbour { worker: Worker::new(host), pipeline: Pipeline::new(vec![Arc::new(transform)]) }
    }

    fn assert_answers(&mut self, after: &str) {
        let output = process(&mut self.worker, &self.pipeline, &batch(&[b"one", b"two", b"X", b"four"]));
        let letters: Vec<_> = output.dead_letters.iter().map(|letter| (letter.source, letter.code)).collect();
        assert_eq!((output.books.kept, letters), (3, vec![(2, HostCode::Trap as u16)]), "after `{after}`");
    }
}

fn batch(values: &[&[u8]]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.append(&Record::unkeyed(value.to_vec(), 1_700_000_000_000)).unwrap();
    }
    builder.finish(Offset(0)).unwrap()
}

fn process(worker: &mut Worker, pipeline: &Pipeline, batch: &RecordBatch) -> PipelineOutput {
    let topic = TopicName::new("clicks").unwrap();
    let input = PipelineInput {
        topic: &topic,
        partition: 0,
        base_offset: Offset(0),
        batch,
        max_record_bytes: RECORD_BYTES_MAX as u32,
        keyed_topics: &[],
    };
    let output = pipeline.run(worker, &input).unwrap();
    assert!(output.books.balance(), "{:?}", output.books);
    output
}

/// Its kind; `None` for those that no attack comes to.
fn refusal_of(error: &PluginError) -> Option<Refusal> {
    Some(match error {
        PluginError::NotWasm => Refusal::NotWasm,
        PluginError::Component => Refusal::Component,
        PluginError::Invalid(_) => Refusal::Invalid,
        PluginError::OverLimit { .. } => Refusal::OverLimit,
        PluginError::ImportRefused { .. } => Refusal::ImportRefused,
        PluginError::Link(_) => Refusal::Link,
        PluginError::ExportMissing { .. } => Refusal::ExportMissing,
        PluginError::ExportType { .. } => Refusal::ExportType,
        PluginError::AbiVersion { .. } => Refusal::AbiVersion,
        PluginError::Describe => Refusal::Describe,
        PluginError::Compile(_) => Refusal::Compile,
        PluginError::Start(fault) => Refusal::Start(fault.code),
        _ => return None,
    })
}

fn code_name(code: u16) -> String {
    use HostCode::{AllocRefused, BadOutput, BatchFailed, Deadline, KeyMissing, RecordTooLarge, Trap};
    let codes = [Trap, Deadline, BadOutput, BatchFailed, AllocRefused, RecordTooLarge, KeyMissing];
    codes.into_iter().find(|known| *known as u16 == code).map_or_else(|| code.to_string(), |known| format!("{known:?}"))
}

/// An error with its causes.
fn text_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
