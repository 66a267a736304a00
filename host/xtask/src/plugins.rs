//! Builds the plugins, and checks those that are kept.
//!
//! A module is kept beside its source (`plugins/NAME/NAME.wasm`, and `benches/guests` likewise for what only benches
//! run), so that a build of the broker needs no wasm target. Which toolchain made it, and its SHA-256, are kept in
//! `plugins/toolchain.toml`: the same toolchain makes the same bytes.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    behaviour,
    run::{root, succeed},
    toolchain::{TARGET, Toolchain},
};

/// Where plugins lie, each in a folder of its name.
const FOLDERS: [&str; 2] = ["plugins", "benches/guests"];

/// A plugin beyond this has something in it that it does not need.
const WASM_BYTES_MAX: usize = 400 << 10;

/// What is known of the kept modules.
#[derive(Serialize, Deserialize)]
struct Kept {
    toolchain: String,
    sha256: BTreeMap<String, String>,
}

impl Kept {
    fn path() -> PathBuf {
        root().join("plugins/toolchain.toml")
    }

    fn read() -> Result<Kept> {
        let path = Self::path();
        let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
        toml::from_str(&text).with_context(|| format!("read `{}`", path.display()))
    }

    fn write(&self) -> Result<()> {
        let head = "# Written by `cargo xtask plugins`: what built the modules kept beside their sources, and their SHA-256.\n";
        fs::write(Self::path(), format!("{head}{}", toml::to_string(self)?)).context("write `plugins/toolchain.toml`")
    }
}

/// Builds all plugins and keeps them.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let mut kept = Kept { toolchain: toolchain.identity.clone(), sha256: BTreeMap::new() };
    for (name, kept_path) in kept_paths()? {
        let wasm = read(&compile(&toolchain, &name)?)?;
        println!("{name}: {} bytes", wasm.len());
        fs::write(kept_path, &wasm).with_context(|| format!("keep plugin `{name}`"))?;
        kept.sha256.insert(name, sha256(&wasm));
    }
    kept.write()
}

/// Checks that the kept modules are the recorded ones and, where a toolchain is installed, what the sources build to.
pub(crate) fn check() -> Result<()> {
    let kept = Kept::read()?;
    let paths = kept_paths()?;
    ensure!(
        paths.keys().eq(kept.sha256.keys()),
        "`plugins/toolchain.toml` lists other plugins than there are; run `cargo xtask plugins`"
    );
    for (name, kept_path) in &paths {
        let wasm = read(kept_path)?;
        ensure!(sha256(&wasm) == kept.sha256[name], "`{name}.wasm` is not the recorded one; run `cargo xtask plugins`");
    }
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(none) => {
            println!("plugins: {} modules are as recorded; not rebuilt: {none}", paths.len());
            return Ok(());
        }
    };
    let is_recorded = toolchain.identity == kept.toolchain;
    for (name, kept_path) in &paths {
        let rebuilt = compile(&toolchain, name)?;
        if !is_recorded {
            behaviour::compare(name, kept_path, &rebuilt)?;
        } else if read(&rebuilt)? != read(kept_path)? {
            bail!("`{name}.wasm` is not what its source builds to; run `cargo xtask plugins`");
        }
    }
    let by = if is_recorded { "byte for byte" } else { "by what they do, with another toolchain" };
    println!("plugins: {} modules rebuilt and compared {by}", paths.len());
    Ok(())
}

/// The plugins there are, by name, and where the module of each is kept.
fn kept_paths() -> Result<BTreeMap<String, PathBuf>> {
    let mut paths = BTreeMap::new();
    for folder in FOLDERS {
        let list = || format!("list `{folder}`");
        for entry in root().join(folder).read_dir().with_context(list)? {
            let path = entry.with_context(list)?.path();
            if path.join("Cargo.toml").is_file() {
                let name = path.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
                paths.insert(name.clone(), path.join(name).with_extension("wasm"));
            }
        }
    }
    Ok(paths)
}

/// Builds one plugin and returns where its module is. Each on its own: what features crates get must not depend on which plugins there are.
fn compile(toolchain: &Toolchain, name: &str) -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("plugins");
    let mut build = toolchain.cargo_build();
    build.arg("--package").arg(format!("weir-plugin-{name}")).arg("--target-dir").arg(&target);
    succeed(&mut build).with_context(|| format!("build plugin `{name}`"))?;
    let wasm = target.join(TARGET).join("plugin").join(name.replace('-', "_")).with_extension("wasm");
    let bytes = read(&wasm)?.len();
    ensure!(bytes <= WASM_BYTES_MAX, "`{name}.wasm` has {bytes} bytes, more than {WASM_BYTES_MAX}");
    Ok(wasm)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read `{}`", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
