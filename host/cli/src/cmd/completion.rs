//! `weir completion`: what a shell needs to complete our commands.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Context;
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir completion bash > ~/.local/share/bash-completion/completions/weir
  weir completion zsh > ~/.zfunc/_weir
  weir completion fish > ~/.config/fish/completions/weir.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "weir", &mut script);
    context.out.raw(&script)?;
    Ok(Exit::Done)
}
