//! Whether two builds of a plugin do the same: both are run over a small corpus, record by record.
//!
//! For where bytes cannot be compared because another toolchain is installed than the one that built the kept modules.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, root};

/// Access log lines and JSON, good and bad: everything is given to every plugin.
const CORPUS: &str = "host/xtask/src/corpus.txt";

/// Every plugin with configurations that take its ways through.
const CASES: [(&str, &str); 16] = [
    ("access-log-json", "{}"),
    ("contains", r#"{"contains":"bot"}"#),
    ("contains", r#"{"contains":"é"}"#),
    ("envelope", "{}"),
    ("json-filter", r#"{"pointer":"/status","op":">=","value":400}"#),
    ("json-filter", r#"{"pointer":"/user/name","op":"contains","value":"n"}"#),
    ("json-filter", r#"{"pointer":"/tags/0","op":"eq","value":"a\"b"}"#),
    ("json-filter", r#"{"pointer":"/status","op":"exists","value":false}"#),
    ("json-project", r#"{"keep":["status","path"],"rename":{"path":"p"}}"#),
    ("json-project", r#"{"drop":["user"],"rename":{"path":"status"}}"#),
    ("mask", r#"{"redact":["/user"],"truncate":{"/path":3},"network":["/remote_addr"]}"#),
    ("mask", r#"{"hash":["/user/name","/status"],"key":"a key of sixteen"}"#),
    ("mask", r#"{"network":["/remote_addr"],"ipv4_prefix":9,"ipv6_prefix":33}"#),
    ("sample", r#"{"n":1}"#),
    ("sample", r#"{"n":3}"#),
    ("serde-filter", "{}"),
];

/// Checks that two modules of one plugin do the same.
pub(crate) fn compare(name: &str, kept: &Path, rebuilt: &Path) -> Result<()> {
    let mut cases = CASES.iter().filter(|(plugin, _)| *plugin == name).peekable();
    ensure!(cases.peek().is_some(), "plugin `{name}` has no case in `host/xtask/src/behaviour.rs`");
    for (_, config) in cases {
        ensure!(
            verdicts(kept, config)? == verdicts(rebuilt, config)?,
            "`{name}.wasm` does other than its source with {config}; run `cargo xtask plugins`"
        );
    }
    Ok(())
}

/// What a module does with each line of the corpus, as the CLI's JSON says it.
fn verdicts(wasm: &Path, config: &str) -> Result<Vec<String>> {
    let mut test = cargo("run --quiet --locked --package weir-cli -- plugin test --json");
    test.arg(wasm).arg("--config").arg(config).arg("--file").arg(root().join(CORPUS));
    let output = test.output().context("run `weir plugin test`")?;
    ensure!(
        output.status.success(),
        "`weir plugin test` fails on `{}`: {}",
        wasm.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    // The last one is a summary, with the time it took.
    lines.pop();
    ensure!(!lines.is_empty(), "`weir plugin test` says nothing of `{}`", wasm.display());
    Ok(lines)
}
