//! What is left out of a run, and how a failure is told: with the command that shows it again.

use std::path::{Path, PathBuf};

use clap::Args;
use sim::{
    disk::{CutModel, Tree},
    run::{Failure, RunOptions},
    shrink::shrink,
};

/// What a run is confined to, and what is left out of it.
#[derive(Args, Clone)]
pub(crate) struct Shape {
    /// What is assumed of the machine, one or several of these; all without
    #[arg(long = "model", value_delimiter = ',', value_parser = model, value_name = "MODEL")]
    models: Vec<CutModel>,
    /// Lets no call to the disk fail
    #[arg(long)]
    no_faults: bool,
    /// Does so many steps of the workload at most
    #[arg(long)]
    steps: Option<usize>,
    /// Leaves out these steps
    #[arg(long, value_delimiter = ',')]
    skip: Vec<usize>,
    /// Cuts only here, of all the places where the seed would
    #[arg(long)]
    cut: Option<usize>,
    /// Does not cut again what goes on after a cut
    #[arg(long)]
    once: bool,
}

fn model(name: &str) -> Result<CutModel, String> {
    let names = CutModel::EVERY.map(CutModel::name).join(", ");
    let found = CutModel::EVERY.into_iter().find(|model| model.name() == name);
    found.ok_or_else(|| format!("`{name}` is none of {names}"))
}

impl Shape {
    pub(crate) fn options(&self) -> RunOptions {
        let default = RunOptions::default();
        RunOptions {
            models: if self.models.is_empty() { default.models.clone() } else { self.models.clone() },
            faults: !self.no_faults,
            steps_max: self.steps,
            skip: self.skip.clone(),
            cut: self.cut,
            again: !self.once,
            ..default
        }
    }
}

/// Makes a failure smaller, and tells it.
pub(crate) fn print_failure(seed: u64, options: &RunOptions, failure: Box<Failure>, save: Option<&Path>) {
    println!("VIOLATION in seed {seed}: {}", failure.violation);
    println!("  again: cargo xtask sim replay --seed {seed}{}", options.arguments());
    let (smaller, failure) = shrink(seed, options, failure);
    println!("  smaller: cargo xtask sim replay --seed {seed}{}", smaller.arguments());
    println!("  {}", failure.violation);
    failure.cuts.iter().for_each(|cut| println!("  {cut}"));
    save_failure(seed, &failure, save);
}

/// Writes files and journals of a failure, where somebody wants them.
pub(crate) fn save_failure(seed: u64, failure: &Failure, save: Option<&Path>) {
    let Some(dir): Option<PathBuf> = save.map(|dir| dir.join(seed.to_string())) else { return };
    match write_failure(failure, &dir) {
        Ok(()) => println!("  files and journals: {}", dir.display()),
        Err(error) => eprintln!("failed to write to `{}`: {error}", dir.display()),
    }
}

fn write_failure(failure: &Failure, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for (number, journal) in failure.journals.iter().enumerate() {
        std::fs::write(to.join(format!("journal-{}", number + 1)), journal.join("\n"))?;
    }
    failure.disk.as_ref().map_or(Ok(()), |tree| write_tree(tree, to))
}

fn write_tree(tree: &Tree, to: &Path) -> std::io::Result<()> {
    for (dir, entries) in &tree.dirs {
        let dir = to.join(dir.strip_prefix("/").unwrap_or(dir));
        std::fs::create_dir_all(&dir)?;
        for (name, node) in entries {
            let Some(blocks) = node.file().and_then(|file| tree.files.get(&file)) else { continue };
            let mut bytes = vec![0; blocks.len() as usize];
            blocks.read(0, &mut bytes);
            std::fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(())
}
