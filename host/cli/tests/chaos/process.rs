//! The broker's process: started, killed, stopped, continued, asked to end.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{clock, common::Place};

/// How long it may take until a broker serves, on a machine that does much else.
const START_DURATION_MAX: Duration = Duration::from_secs(60);

/// How long a broker may take to end when it is asked: what its configuration gives clients to go, and time to close.
const END_DURATION_MAX: Duration = Duration::from_secs(30);

/// What brokers of a place have in common.
pub(crate) struct Launcher<'a> {
    pub(crate) place: &'a Place,
    pub(crate) data_dir: PathBuf,
    pub(crate) config: String,
    /// The same port for all of them, once the first has one.
    pub(crate) address: Option<SocketAddr>,
}

/// A running broker; killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Launcher<'_> {
    /// Starts a broker without waiting for it.
    pub(crate) fn launch(&self) -> anyhow::Result<Process> {
        let address = self.address.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        let data_dir = self.data_dir.to_str().context("temporary paths are text")?;
        let args = ["serve", "--json", "--quic", &address, "--data-dir", data_dir, "--config", &self.config];
        let mut command = self.place.command(&args);
        command.env("WEIR_LOG", "warn").stdout(Stdio::piped()).stderr(self.log()?);
        Ok(Process { child: command.spawn().context("the binary does not run")? })
    }

    /// Starts a broker and waits until it serves. What it said, when it does not.
    pub(crate) fn start(&mut self) -> anyhow::Result<Process> {
        let mut process = self.launch()?;
        let stdout = process.child.stdout.take().context("its output is piped")?;
        let (sender, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(START_DURATION_MAX).context("the broker does not become ready")?;
        match serde_json::from_str::<Value>(&line).ok().and_then(|ready| ready["quic"].as_str()?.parse().ok()) {
            Some(address) => {
                self.address = Some(address);
                Ok(process)
            }
            None => bail!("the broker does not start ({:?}); see {}", process.child.wait()?, self.log_path().display()),
        }
    }

    /// What all brokers wrote to stderr.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.place.path("broker.log")
    }

    fn log(&self) -> anyhow::Result<File> {
        Ok(OpenOptions::new().create(true).append(true).open(self.log_path())?)
    }
}

impl Process {
    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let asked = clock::now();
        while asked.elapsed() < END_DURATION_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the broker was asked to end {END_DURATION_MAX:?} ago and runs on")
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
