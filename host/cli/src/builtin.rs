//! The plugins that come with the binary, named `builtin:NAME`.
//!
//! Owns the bytes of the modules that lie built beside their sources in `plugins/`.

use std::{fs, path::Path};

use protocol::limits::PLUGIN_BYTES_MAX;

use crate::exit::{Exit, Failure};

/// A plugin in the binary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    pub(crate) wasm: &'static [u8],
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        /// All of them, by name.
        pub(crate) const ALL: &[Builtin] = &[
            $(Builtin {
                name: $name,
                wasm: include_bytes!(concat!("../../../plugins/", $name, "/", $name, ".wasm")),
            }),*
        ];
    };
}

builtin!("access-log-json", "contains", "json-filter", "json-project", "mask", "sample");

/// The one of this name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    ALL.iter().find(|builtin| builtin.name == name)
}

/// The module that `FILE` or `builtin:NAME` names.
pub(crate) fn read_module(source: &str) -> anyhow::Result<Vec<u8>> {
    match source.strip_prefix("builtin:") {
        Some(name) => find(name).map(|builtin| builtin.wasm.to_vec()).ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|builtin| builtin.name).collect();
            let advice = format!("these are in the binary: {}", names.join(", "));
            Failure::new(Exit::NotFound, format!("there is no built-in plugin `{name}`"), advice).into()
        }),
        None => read_file(Path::new(source)),
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = |error| {
        let text = format!("cannot read the plugin file `{}`", path.display());
        Failure::new(Exit::Refused, text, "give a .wasm file, or `builtin:NAME`").because(error)
    };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > PLUGIN_BYTES_MAX as u64 {
        let text = format!(
            "plugin file `{}` of {bytes} B is larger than `plugin_bytes_max` ({PLUGIN_BYTES_MAX} B)",
            path.display()
        );
        return Err(Failure::new(Exit::Refused, text, "build it with `--release`, and strip its debug info").into());
    }
    Ok(fs::read(path).map_err(unreadable)?)
}
