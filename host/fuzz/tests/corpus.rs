//! The corpus, and simple changes of it, through every target: what libFuzzer does for minutes, for a second each, on
//! any toolchain.

use std::{
    fs, panic,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fuzz::{TARGETS, Target};

/// How long the changes of one target's corpus go on.
const CHANGES: Duration = Duration::from_millis(500);

fn dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(dir(target)).into_iter().flatten().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
    let mut corpus: Vec<_> = files.map(read).collect();
    corpus.sort();
    corpus
}

#[test]
fn every_input_of_the_corpus_passes() {
    for target in TARGETS {
        let corpus = corpus(target);
        for (name, _) in (target.seeds)() {
            let seed = format!("seed-{name}");
            assert!(corpus.iter().any(|(file, _)| *file == seed), "`{seed}` of {} is not kept", target.name);
        }
        for (name, data) in corpus {
            let passed = panic::catch_unwind(|| (target.run)(&data)).is_ok();
            assert!(passed, "{} does not pass `{name}`", target.name);
        }
    }
}

#[test]
fn every_seed_passes_and_every_cut_of_it() {
    for target in TARGETS {
        for (_, data) in (target.seeds)() {
            (0..data.len().min(512)).for_each(|end| (target.run)(&data[..end]));
            (target.run)(&data);
        }
    }
}

#[test]
fn changed_inputs_pass() {
    for target in TARGETS {
        let corpus = corpus(target);
        let mut random = Random(1);
        let began = now();
        while began.elapsed() < CHANGES {
            let (name, data) = &corpus[random.below(corpus.len())];
            let data = random.changed(data);
            let passed = panic::catch_unwind(|| (target.run)(&data)).is_ok();
            assert!(passed, "{} does not pass `{name}` changed to {data:02x?}", target.name);
        }
    }
}

/// Writes the seeds into the corpus: `cargo test -p weir-fuzz --test corpus -- --ignored keep_seeds`.
#[test]
#[ignore = "writes into the source tree"]
fn keep_seeds() {
    for target in TARGETS {
        fs::create_dir_all(dir(target)).unwrap();
        for (name, data) in (target.seeds)() {
            fs::write(dir(target).join(format!("seed-{name}")), data).unwrap();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "bounds a test in time")]
fn now() -> Instant {
    Instant::now()
}

/// Xorshift: the same changes every time, as far as the time goes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// A few bytes changed, doubled or gone, or the end cut off.
    fn changed(&mut self, data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        for _ in 0..=self.below(4) {
            if data.is_empty() {
                break;
            }
            let at = self.below(data.len());
            match self.below(6) {
                0 => data[at] ^= 1 << self.below(8),
                1 => data[at] = self.next() as u8,
                2 => data[at] = [0, 0xff, 0x7f, 0x80][self.below(4)],
                3 => drop(data.remove(at)),
                4 => data.insert(at, self.next() as u8),
                _ => data.truncate(at),
            }
        }
        data
    }
}
