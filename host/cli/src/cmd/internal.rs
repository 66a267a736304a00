//! `weir internal`: what the binary runs itself again for, and nobody else should. Hidden from the help.

use std::{
    io::{stdin, stdout},
    path::PathBuf,
};

use clap::Subcommand;
use storage::ProbedFile;

use super::Context;
use crate::{
    child::{Bounds, confine},
    compiler,
    exit::Exit,
    prober::{self, Answer},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look into a redb file that may be damaged; one line of JSON says what was found
    Probe {
        /// What the file is
        #[arg(value_parser = parse_kind)]
        kind: ProbedFile,
        /// Where it is
        path: PathBuf,
    },
    /// Compile the module on stdin; its native code goes to stdout
    Compile {
        /// Memory it may take
        memory_bytes: u64,
        /// CPU time it may take
        cpu_seconds: u64,
    },
}

/// What a kind of file is called on the command line.
pub(crate) fn kind_name(kind: ProbedFile) -> &'static str {
    match kind {
        ProbedFile::Segment => "segment",
        ProbedFile::SegmentPages => "segment-pages",
        ProbedFile::State => "state",
    }
}

fn parse_kind(name: &str) -> Result<ProbedFile, String> {
    let kinds = [ProbedFile::Segment, ProbedFile::SegmentPages, ProbedFile::State];
    kinds.into_iter().find(|kind| kind_name(*kind) == name).ok_or_else(|| "no file is of this kind".to_owned())
}

pub(crate) fn run(command: &Command, context: &mut Context) -> anyhow::Result<Exit> {
    match command {
        Command::Probe { kind, path } => {
            confine(prober::bounds(path))?;
            let answer = Answer::of(storage::probe(path, *kind));
            context.out.json_line(&answer)?;
        }
        Command::Compile { memory_bytes, cpu_seconds } => {
            confine(Bounds { memory_bytes: *memory_bytes, cpu_seconds: *cpu_seconds })?;
            compiler::compile(&mut stdin().lock(), &mut stdout().lock())?;
        }
    }
    Ok(Exit::Done)
}
