//! Runs the fuzz targets of `host/fuzz`, one after the other, and keeps what breaks them.
//!
//! The targets are built by `cargo fuzz` with coverage and without a sanitizer: there is no unsafe code of ours to watch,
//! and the build and each execution are several times faster. That works on a stable toolchain, too, where cargo-fuzz
//! finds `RUSTC_BOOTSTRAP=1`. (`RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir host/fuzz --features libfuzzer TARGET` has
//! the address sanitizer.)

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, is_installed, root, succeed};

const FUZZ_DIR: &str = "host/fuzz";

/// One input may take this long, and this much memory, whatever else it does.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];

/// In the lines that say how far libFuzzer is: the number of edges it has reached.
const COVERAGE: &str = "cov: ";

/// What came of one target.
struct Outcome {
    target: String,
    executions: u64,
    /// Edges of the program that were reached.
    coverage: u64,
    /// The panic's message, and the corpus file that brings it.
    finding: Option<(String, String)>,
}

/// Runs some targets, or all, this long each.
pub(crate) fn run(seconds: u32, chosen: &[String]) -> Result<()> {
    ensure!(is_installed("cargo-fuzz"), "cargo-fuzz is not there: `cargo install cargo-fuzz` brings it");
    let all = targets()?;
    for target in chosen {
        ensure!(all.contains(target), "there is no target `{target}`; there are: {}", all.join(", "));
    }
    let targets = if chosen.is_empty() { all } else { chosen.to_vec() };
    println!("fuzz: building {} targets", targets.len());
    succeed(&mut cargo_fuzz("build"))?;
    let mut outcomes = Vec::new();
    for (nth, target) in targets.iter().enumerate() {
        println!("fuzz: {target} ({} of {}), {seconds} s", nth + 1, targets.len());
        outcomes.push(fuzz(target, seconds)?);
    }
    report(&outcomes);
    let found = outcomes.iter().filter(|outcome| outcome.finding.is_some()).count();
    ensure!(found == 0, "{found} targets were broken; their inputs are kept in `{FUZZ_DIR}/corpus`");
    Ok(())
}

/// The programs there are.
fn targets() -> Result<Vec<String>> {
    let dir = root().join(FUZZ_DIR).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read `{}`", dir.display()))? {
        names.extend(entry?.path().file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn cargo_fuzz(verb: &str) -> Command {
    let build = "--fuzz-dir host/fuzz --features libfuzzer --sanitizer none --codegen-units 16";
    let mut command = cargo(&format!("fuzz {verb} {build}"));
    // Linking sixteen programs with LTO takes longer than running them.
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
    command
}

/// Where inputs of interest are gathered between runs: not in the source tree, there are thousands.
fn work_dir(target: &str) -> PathBuf {
    let target_dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target_dir.join("fuzz").join(target)
}

fn fuzz(target: &str, seconds: u32) -> Result<Outcome> {
    let (work, artifacts) = (work_dir(target), work_dir(target).with_extension("artifacts"));
    for dir in [&work, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("make `{}`", dir.display()))?;
    }
    let kept = root().join(FUZZ_DIR).join("corpus").join(target);
    let mut command = cargo_fuzz("run");
    command.arg(target).args([&work, &kept]).arg("--");
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1").args(LIMITS);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().context("run `cargo fuzz`")?;
    let mut outcome = Outcome { target: target.to_owned(), executions: 0, coverage: 0, finding: None };
    let mut panic = None;
    let mut lines = BufReader::new(child.stderr.take().context("read what `cargo fuzz` says")?).lines();
    while let Some(line) = lines.next().transpose()? {
        if let Some(number) = number_behind(&line, COVERAGE) {
            outcome.coverage = number;
            // One line for every doubling; those about new inputs are thousands.
            if line.contains("pulse") {
                println!("fuzz:   {}", line.trim());
            }
        } else if let Some(number) = number_behind(&line, "stat::number_of_executed_units: ") {
            outcome.executions = number;
        } else if line.contains("panicked at") && panic.is_none() {
            let message = lines.next().transpose()?.unwrap_or_default();
            panic = Some(format!("{line} {message}"));
        } else if line.contains("ERROR: libFuzzer") {
            panic.get_or_insert(line);
        }
    }
    let passed = child.wait().context("wait for `cargo fuzz`")?.success();
    outcome.finding = keep_artifact(&artifacts, &kept)?.map(|file| (panic.clone().unwrap_or_default(), file));
    ensure!(passed || outcome.finding.is_some(), "`cargo fuzz run {target}` failed: {}", panic.unwrap_or_default());
    Ok(outcome)
}

/// The number behind some words, whatever follows it.
fn number_behind(line: &str, words: &str) -> Option<u64> {
    let rest = line.split_once(words)?.1.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Moves what broke the target into its corpus; the file's name.
fn keep_artifact(artifacts: &Path, kept: &Path) -> Result<Option<String>> {
    let mut name = None;
    for entry in fs::read_dir(artifacts)? {
        let path = entry?.path();
        let file = format!("found-{}", path.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        let file = &file[..file.len().min("found-crash-".len() + 12)];
        fs::copy(&path, kept.join(file)).with_context(|| format!("keep `{}`", path.display()))?;
        fs::remove_file(&path)?;
        name = Some(file.to_owned());
    }
    Ok(name)
}

fn report(outcomes: &[Outcome]) {
    println!("\n{:<16} {:>12} {:>9}  finding", "target", "executions", "coverage");
    for Outcome { target, executions, coverage, finding } in outcomes {
        let finding = finding.as_ref().map_or_else(|| "none".to_owned(), |(panic, file)| format!("{file}: {panic}"));
        println!("{target:<16} {executions:>12} {coverage:>9}  {finding}");
    }
    let sum: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    println!("{:<16} {sum:>12}", "all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_libfuzzer_are_read() {
        let pulse = "#4194304\tpulse  cov: 612 ft: 2049 corp: 296/20Kb lim: 4096 exec/s: 349525 rss: 500Mb";
        assert_eq!(number_behind(pulse, COVERAGE), Some(612));
        let units = "stat::number_of_executed_units: 13042";
        assert_eq!(number_behind(units, "stat::number_of_executed_units: "), Some(13_042));
        assert_eq!(number_behind("INFO: Seed: 9", COVERAGE), None);
    }

    #[test]
    fn there_are_targets() {
        assert!(targets().unwrap().contains(&"record_batch".to_owned()));
    }
}
