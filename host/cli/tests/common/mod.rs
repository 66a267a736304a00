//! The real binary in a place of its own: a temporary data directory, no environment of the user's, and every process
//! it starts is ended.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// One user's place on a host.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("weir-data")
    }

    /// Writes a file and returns its path as an argument.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file in the temporary directory");
        path.to_str().expect("temporary paths are text").to_owned()
    }

    /// The binary, with this place as its home and its folder, and no other settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run")).env("TMPDIR", self.dir.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::new(args, self.command(args).output().expect("the binary runs"))
    }

    /// Runs a command to its end and expects it to succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.exit, 0, "{ran:?}");
        ran
    }

    /// Runs a command with text on its stdin.
    pub(crate) fn run_with(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.as_ref().to_vec();
        // A command that refuses its arguments reads nothing: its pipe is closed then, which is not this test's matter.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = Ran::new(args, child.wait_with_output().unwrap());
        writer.join().unwrap();
        ran
    }

    /// Starts a broker on any free port and waits until it is ready.
    pub(crate) fn serve(&self) -> Broker {
        self.serve_with(&["--quic", "127.0.0.1:0"])
    }

    pub(crate) fn serve_with(&self, args: &[&str]) -> Broker {
        Broker::start(self.serve_command(args))
    }

    /// Starts a broker whose log goes to `broker.log` of this place, for tests in which it is long.
    pub(crate) fn serve_with_log(&self) -> Broker {
        let log = std::fs::File::create(self.path("broker.log")).expect("a file in the temporary directory");
        let mut command = self.serve_command(&["--quic", "127.0.0.1:0"]);
        command.stderr(log);
        Broker::start(command)
    }

    fn serve_command(&self, args: &[&str]) -> Command {
        self.command(&[&["serve", "--json"], args].concat())
    }
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) args: Vec<String>,
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran { args, exit, stdout, stderr } = self;
        write!(f, "`weir {}` ended with {exit}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", args.join(" "))
    }
}

impl Ran {
    fn new(args: &[&str], output: Output) -> Ran {
        Ran {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("stdout is text"),
            stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Every line of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in `{line}` of {self:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The last line of stdout as JSON: the summary.
    pub(crate) fn summary(&self) -> Value {
        self.json().pop().unwrap_or_else(|| panic!("no line: {self:?}"))
    }

    /// Expects a refusal that names all of `parts` and ends with advice.
    pub(crate) fn refused(&self, exit: i32, parts: &[&str]) {
        assert_eq!(self.exit, exit, "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert!(self.stderr.contains("\n  try: "), "no advice: {self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not said: {self:?}");
        }
    }
}

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    pub(crate) quic: SocketAddr,
    pub(crate) ready: Value,
}

impl Broker {
    fn start(mut command: Command) -> Broker {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            panic!("not ready: `{line}`, {:?}", child.wait());
        };
        let quic = ready["quic"].as_str().unwrap().parse().unwrap();
        Broker { child, quic, ready }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, as a service manager does, and returns what it ended with.
    pub(crate) fn terminate(mut self) -> i32 {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs while the test does other things; killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    args: Vec<String>,
    pub(crate) stdin: Option<ChildStdin>,
}

impl Running {
    pub(crate) fn start(place: &Place, args: &[&str]) -> Running {
        let mut command = place.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let stdin = child.stdin.take();
        Running { child: Some(child), args: args.iter().map(|arg| (*arg).to_owned()).collect(), stdin }
    }

    /// Writes a line to it.
    pub(crate) fn write(mut self, line: &str) -> Running {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        match writeln!(stdin, "{line}") {
            Ok(()) => self,
            Err(error) => panic!("it takes no more lines ({error}): {:?}", self.finish()),
        }
    }

    pub(crate) fn stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.child.as_mut().unwrap().stdout.take().expect("taken once"))
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn finish(mut self) -> Ran {
        drop(self.stdin.take());
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        Ran::new(&args, self.child.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
