//! What plugins are compiled with.
//!
//! Two kinds of toolchain are known: the one that runs us, where rustup has added the wasm target to it, and Debian's
//! (`apt install rustc-web rust-web-src lld-19`), whose standard library is built with the plugin.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::run::{cargo, command, is_installed, output, root};

/// What WebAssembly of the host's engine may use beyond its first version.
const TARGET_FEATURES: &str = "-Ctarget-feature=+simd128,+bulk-memory,+sign-ext,+nontrapping-fptoint";

/// Functions of several times the usual size are inlined: the engine checks the stack and the deadline at every call, so
/// one that is left out costs more in a guest than it does natively.
const INLINING: &str = "-Cllvm-args=-inline-threshold=800";

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// A compiler that can make plugins.
pub(crate) struct Toolchain {
    rustc: PathBuf,
    sysroot: PathBuf,
    /// Where the standard library must be built too: the linker.
    build_std: Option<&'static str>,
    /// Versions of all that decides about the bytes it makes.
    pub(crate) identity: String,
}

impl Toolchain {
    /// The best one that is installed.
    pub(crate) fn find() -> Result<Toolchain> {
        if let Some(toolchain) = Self::with_target("rustc".into()).or_else(Self::debian) {
            return Ok(toolchain);
        }
        bail!(
            "no toolchain for {TARGET}; try `rustup target add {TARGET}`, or on Debian `apt install rustc-web rust-web-src lld-19`"
        )
    }

    /// A compiler with the target's standard library.
    fn with_target(rustc: PathBuf) -> Option<Toolchain> {
        let libraries = output(&mut command(&rustc, &format!("--print target-libdir --target {TARGET}")))?;
        PathBuf::from(libraries).is_dir().then_some(())?;
        Some(Toolchain { identity: version(&rustc)?, sysroot: sysroot(&rustc)?, rustc, build_std: None })
    }

    /// Debian's compiler, with the standard library's source and a linker.
    fn debian() -> Option<Toolchain> {
        let rustc = PathBuf::from("/usr/bin/rustc");
        let sysroot = sysroot(&rustc)?;
        sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file().then_some(())?;
        let linker =
            ["wasm-ld-19", "wasm-ld-20", "wasm-ld-21", "wasm-ld"].into_iter().find(|name| is_installed(name))?;
        let linker_version = output(&mut command(linker, "--version"))?;
        let identity = format!("{}, its std, {linker_version}", version(&rustc)?);
        Some(Toolchain { rustc, sysroot, build_std: Some(linker), identity })
    }

    /// A cargo that builds plugins with this toolchain; the same bytes wherever the sources lie.
    pub(crate) fn cargo_build(&self) -> Command {
        let mut flags = vec![TARGET_FEATURES.to_owned(), INLINING.to_owned()];
        let remapped = registries()
            .map(|folder| (folder, "/crates"))
            .chain([(self.sysroot.join("lib/rustlib/src/rust"), "/rust"), (root(), "/weir")]);
        flags.extend(remapped.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));

        let mut cargo = cargo(&format!("build --locked --quiet --profile plugin --target {TARGET}"));
        if let Some(linker) = self.build_std {
            flags.push(format!("-Clinker={linker}"));
            // Building the standard library is for nightly compilers; this makes a stable one try it.
            cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        }
        cargo.env("RUSTC", &self.rustc).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo
    }
}

fn version(rustc: &PathBuf) -> Option<String> {
    output(&mut command(rustc, "--version"))
}

fn sysroot(rustc: &PathBuf) -> Option<PathBuf> {
    output(&mut command(rustc, "--print sysroot")).map(PathBuf::from)
}

/// Where cargo keeps the sources of crates: one folder per registry.
fn registries() -> impl Iterator<Item = PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let folders = home.and_then(|home| home.join("registry/src").read_dir().ok());
    folders.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}
