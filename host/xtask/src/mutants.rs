//! Plants faults in the product, one at a time, and has the simulator find each.
//!
//! Owns a copy of the tracked files (`target/mutants/tree`), never the tree itself. The faults are kept in
//! `host/sim/mutants.toml`, as text that is replaced: where it is no longer there exactly once, that is said, by a test
//! too, and the mutant has to be written anew.
//!
//! Start at [`run`].

use std::{
    collections::BTreeMap,
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    clock::now,
    run::{cargo, output, root, succeed},
};

const LIST: &str = "host/sim/mutants.toml";

/// Dependencies are those of the lock file, but for a mutant that asks for another version of one.
const LOCKED: &str = "--locked";

/// A mutant that is not caught in this time survives.
const CATCH_DURATION_MAX: Duration = Duration::from_secs(120);

/// The tree without a mutant must pass this long, or everything would be "caught".
const SOUND_DURATION: Duration = Duration::from_secs(20);

/// How often it is looked whether a program has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What the simulator says when a promise is broken.
const BROKEN: &str = "VIOLATION";

/// The list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// What the simulator is given, where a mutant says nothing else.
    command: String,
    mutant: Vec<Mutant>,
}

/// One planted fault.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    /// The promise it breaks, and how.
    breaks: String,
    /// What the simulator is given to find it.
    command: Option<String>,
    /// Or the tests of the store that do: what `cargo test` is given.
    tests: Option<String>,
    edits: Vec<Edit>,
}

/// Text that is replaced.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
}

/// What came of a mutant.
struct Outcome {
    name: String,
    seconds: f64,
    /// What was said by whatever caught it.
    caught: Option<String>,
}

/// Plants these mutants, or all.
pub(crate) fn run(chosen: &[String], only_list: bool) -> Result<()> {
    let list = read()?;
    for name in chosen {
        ensure!(list.mutant.iter().any(|mutant| mutant.name == *name), "there is no mutant `{name}`: see `--list`");
    }
    let mutants: Vec<&Mutant> =
        list.mutant.iter().filter(|mutant| chosen.is_empty() || chosen.contains(&mutant.name)).collect();
    if only_list {
        mutants.iter().for_each(|mutant| println!("{:<28} {}", mutant.name, mutant.breaks));
        return Ok(());
    }
    let tree = Tree::copied()?;
    println!("mutants: the tree as it is");
    tree.build(LOCKED)?;
    let (caught, _) = watch(tree.simulator(&list.command), SOUND_DURATION, &tree.log("sound"))?;
    ensure!(caught.is_none(), "the tree breaks its promises without a mutant: {}", caught.unwrap_or_default());
    let mut outcomes = Vec::new();
    for (nth, mutant) in mutants.iter().enumerate() {
        println!("mutants: {} ({} of {}): {}", mutant.name, nth + 1, mutants.len(), mutant.breaks);
        let outcome = tree.try_out(mutant, &list.command)?;
        println!("mutants:   {}", outcome.text());
        outcomes.push(outcome);
    }
    report(&outcomes)
}

fn read() -> Result<List> {
    let path = root().join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("read `{}`", path.display()))
}

impl Mutant {
    /// The files it changes, as they are under a root and as they will be.
    fn files(&self, root: &Path) -> Result<BTreeMap<PathBuf, (String, String)>> {
        let mut files = BTreeMap::new();
        for Edit { file, find, replace } in &self.edits {
            let path = root.join(file);
            if !files.contains_key(&path) {
                let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
                files.insert(path.clone(), (text.clone(), text));
            }
            let (_, text) = files.get_mut(&path).expect("it was just put there");
            let count = text.matches(find.as_str()).count();
            ensure!(count == 1, "mutant `{}`: its text is {count} times in `{file}`, not once:\n{find}", self.name);
            *text = text.replace(find.as_str(), replace);
        }
        Ok(files)
    }
}

/// A copy of the tracked files, and what is built of it.
struct Tree {
    dir: PathBuf,
}

impl Tree {
    /// Brings the copy up to date; what has not changed is not touched, so that little has to be built.
    fn copied() -> Result<Tree> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let dir = target.join("mutants/tree");
        let listed = output(Command::new("git").args(["ls-files", "-z"]).current_dir(root()));
        let listed = listed.context("`git ls-files` says what belongs to the tree")?;
        for file in listed.split('\0').filter(|file| !file.is_empty()) {
            copy_if_changed(&root().join(file), &dir.join(file))?;
        }
        Ok(Tree { dir })
    }

    fn cargo(&self, arguments: &str) -> Command {
        let mut command = cargo(arguments);
        command.current_dir(&self.dir).env("CARGO_TARGET_DIR", self.dir.with_file_name("build"));
        // What a mutant leaves unused is no concern of anybody's.
        command.env("RUSTFLAGS", "--cap-lints=allow");
        command
    }

    fn build(&self, locked: &str) -> Result<()> {
        succeed(&mut self.cargo(&format!("build --quiet {locked} --package weir-sim --profile sim")))
    }

    fn simulator(&self, arguments: &str) -> Command {
        let mut command = Command::new(self.dir.with_file_name("build").join("sim/weir-sim"));
        command.args(arguments.split_whitespace()).current_dir(&self.dir);
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.with_file_name(format!("{name}.log"))
    }

    /// Plants a mutant, has it looked for, and takes it out again.
    fn try_out(&self, mutant: &Mutant, command: &str) -> Result<Outcome> {
        let mut files = mutant.files(&self.dir)?;
        // Another version of a dependency is written into it.
        let lock = self.dir.join("Cargo.lock");
        let text = fs::read_to_string(&lock).with_context(|| format!("read `{}`", lock.display()))?;
        files.insert(lock, (text.clone(), text));
        for (path, (_, changed)) in &files {
            fs::write(path, changed).with_context(|| format!("write `{}`", path.display()))?;
        }
        let outcome = self.find(mutant, command);
        for (path, (original, _)) in &files {
            fs::write(path, original).with_context(|| format!("write `{}`", path.display()))?;
        }
        outcome
    }

    fn find(&self, mutant: &Mutant, command: &str) -> Result<Outcome> {
        let locked = if mutant.edits.iter().any(|edit| edit.file == "Cargo.toml") { "" } else { LOCKED };
        let finder = match &mutant.tests {
            Some(tests) => {
                let arguments = format!("test --quiet {locked} --package weir-storage --profile sim {tests}");
                succeed(&mut self.cargo(&format!("{arguments} --no-run")))
                    .with_context(|| format!("build mutant `{}`", mutant.name))?;
                self.cargo(&arguments)
            }
            None => {
                self.build(locked).with_context(|| format!("build mutant `{}`", mutant.name))?;
                self.simulator(mutant.command.as_deref().unwrap_or(command))
            }
        };
        let (caught, took) = watch(finder, CATCH_DURATION_MAX, &self.log(&mutant.name))?;
        Ok(Outcome { name: mutant.name.clone(), seconds: took.as_secs_f64(), caught })
    }
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = match fs::read(from) {
        Ok(bytes) => bytes,
        // Tracked, and removed since the last commit.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read `{}`", from.display())),
    };
    if fs::read(to).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    let dir = to.parent().context("a file lies in a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("make `{}`", dir.display()))?;
    fs::write(to, bytes).with_context(|| format!("write `{}`", to.display()))
}

/// Runs a program until it fails, or for some time; what it said of a failure, and how long it took. What it says goes to
/// a file.
fn watch(mut program: Command, at_most: Duration, log: &Path) -> Result<(Option<String>, Duration)> {
    let file = fs::File::create(log).with_context(|| format!("write `{}`", log.display()))?;
    program.stdout(file.try_clone()?).stderr(Stdio::from(file)).env("RUST_BACKTRACE", "0");
    let begun = now();
    let mut child = program.spawn().with_context(|| format!("run {}", program.get_program().display()))?;
    let failed = loop {
        if let Some(status) = child.try_wait()? {
            break !status.success();
        }
        // It may go on to find the shortest way there.
        if fs::read_to_string(log).is_ok_and(|said| said.contains(BROKEN)) {
            end(&mut child)?;
            break true;
        }
        if begun.elapsed() > at_most {
            end(&mut child)?;
            break false;
        }
        thread::sleep(LOOK_INTERVAL);
    };
    let took = begun.elapsed();
    let said = failed.then(|| said_in(&fs::read_to_string(log).unwrap_or_default()));
    Ok((said, took))
}

fn end(child: &mut Child) -> Result<()> {
    child.kill().context("end a program that takes too long")?;
    child.wait().context("end a program that takes too long").map(drop)
}

/// The line that says what was wrong.
fn said_in(log: &str) -> String {
    let tells = |line: &&str| [BROKEN, "hangs", "panicked", "FAILED"].iter().any(|word| line.contains(word));
    log.lines().find(tells).or_else(|| log.lines().last()).unwrap_or("it failed without a word").trim().to_owned()
}

impl Outcome {
    fn text(&self) -> String {
        match &self.caught {
            Some(said) => format!("caught after {:.1} s: {}", self.seconds, said.chars().take(140).collect::<String>()),
            None => format!("SURVIVED {:.0} s", self.seconds),
        }
    }
}

fn report(outcomes: &[Outcome]) -> Result<()> {
    println!();
    outcomes.iter().for_each(|outcome| println!("{:<28} {}", outcome.name, outcome.text()));
    let survivors: Vec<&str> =
        outcomes.iter().filter(|outcome| outcome.caught.is_none()).map(|outcome| outcome.name.as_str()).collect();
    println!("{} of {} mutants are caught", outcomes.len() - survivors.len(), outcomes.len());
    if survivors.is_empty() { Ok(()) } else { bail!("these survived: {}", survivors.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_every_mutant_is_there_exactly_once() {
        let list = read().unwrap();
        assert!(list.mutant.len() >= 15);
        for mutant in &list.mutant {
            let files = mutant.files(&root()).unwrap();
            assert!(files.values().all(|(before, after)| before != after), "`{}` changes nothing", mutant.name);
            assert!(mutant.command.is_none() || mutant.tests.is_none(), "`{}` is looked for in two ways", mutant.name);
        }
    }

    #[test]
    fn every_mutant_has_a_name_of_its_own() {
        let list = read().unwrap();
        let mut names: Vec<&str> = list.mutant.iter().map(|mutant| mutant.name.as_str()).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_was_found_is_told() {
        let log = "seed 5: 40 cuts\nVIOLATION in seed 9: `acked` was broken: commit 4 is gone\n  again: weir-sim";
        assert_eq!(said_in(log), "VIOLATION in seed 9: `acked` was broken: commit 4 is gone");
        assert_eq!(said_in("error: no such option"), "error: no such option");
    }
}
