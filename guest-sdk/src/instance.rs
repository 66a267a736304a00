//! A plugin's side of every call, in plain Rust: [`exports`](crate::exports) puts the ABI's signatures before it.
//!
//! Invariants
//! - The input is read from the buffer that the last `alloc` handed out, and from nowhere else.
//! - What a call returns stays as it is until the next one.

use serde::de::DeserializeOwned;

use abi::{LogLevel, describe};

use crate::{
    Batch, BatchMalformed,
    answer::{Answer, Bases},
    config, json, log,
    run::Processed,
};

/// A plugin, as [`guest!`](crate::guest) makes one of a function.
pub trait Guest: Sized + 'static {
    /// What it is configured with.
    type Config: DeserializeOwned + 'static;

    /// One line for people.
    const DESCRIPTION: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// A JSON Schema of its configuration.
    const SCHEMA: &'static str;

    /// Decides about the records of a batch.
    ///
    /// # Errors
    /// Where the batch is malformed.
    fn process(config: &Self::Config, batch: &Batch<'_>, answer: &mut Answer) -> Processed;
}

/// What one running plugin holds between calls: its configuration, and buffers to use again.
#[derive(Debug)]
pub struct Instance<G: Guest> {
    input: Vec<u8>,
    config: Option<G::Config>,
    answer: Answer,
    description: String,
}

impl<G: Guest> Instance<G> {
    /// An instance that has not been configured.
    #[must_use]
    pub const fn new() -> Self {
        Instance { input: Vec::new(), config: None, answer: Answer::new(), description: String::new() }
    }

    /// A buffer of at least so many bytes, for the host to write an input to.
    pub fn alloc(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.input.len() < len {
            self.input.try_reserve(len - self.input.len()).ok()?;
            self.input.resize(len, 0);
        }
        Some(&mut self.input)
    }

    /// What the plugin says of itself, as JSON.
    pub fn describe(&mut self) -> &[u8] {
        let mut text = Vec::new();
        for (key, value) in [(describe::DESCRIPTION, G::DESCRIPTION), (describe::VERSION, G::VERSION)] {
            text.push(if text.is_empty() { b'{' } else { b',' });
            json::push_str(&mut text, key);
            text.push(b':');
            json::push_str(&mut text, value);
        }
        text.push(b',');
        json::push_str(&mut text, describe::CONFIG);
        text.push(b':');
        text.extend_from_slice(G::SCHEMA.trim().as_bytes());
        text.push(b'}');
        self.description = String::from_utf8_lossy(&text).into_owned();
        self.description.as_bytes()
    }

    /// Takes the configuration from the input buffer; `false` where it is refused, with the reason logged.
    pub fn init(&mut self, len: usize) -> bool {
        match self.try_init(len) {
            Ok(()) => true,
            Err(why) => {
                log(LogLevel::Error, format_args!("{why}"));
                false
            }
        }
    }

    /// As [`Instance::init`].
    ///
    /// # Errors
    /// Why the configuration is refused.
    pub(crate) fn try_init(&mut self, len: usize) -> Result<(), String> {
        let text = self.input.get(..len).ok_or("configuration is outside the input buffer")?;
        self.config = Some(config::parse(text)?);
        Ok(())
    }

    /// Decides about the batch in the input buffer; nothing where it cannot, with the reason logged.
    pub fn process(&mut self, len: usize, address: impl Fn(&[u8]) -> u32) -> Option<&[u8]> {
        match self.try_process(len, address) {
            Ok(output) => Some(output),
            Err(why) => {
                log(LogLevel::Error, format_args!("{why}"));
                None
            }
        }
    }

    fn try_process(&mut self, len: usize, address: impl Fn(&[u8]) -> u32) -> Result<&[u8], String> {
        if self.config.is_none() {
            // A host that skips `weir_init` means: no configuration.
            self.config = Some(config::parse(b"{}")?);
        }
        let config = self.config.as_ref().ok_or("not configured")?;
        let input = self.input.get(..len).ok_or("batch is outside the input buffer")?;
        let malformed = |error: BatchMalformed| error.to_string();
        let batch = Batch::decode(input).map_err(malformed)?;
        let laid = G::process(config, &batch, &mut self.answer).map_err(malformed)?;
        let bases = Bases { input: address(input), bytes: address(self.answer.bytes()) };
        Ok(laid.finish(&mut self.answer, bases))
    }

    /// The buffers that addresses in the last output point into: the input, and the guest's own bytes.
    pub(crate) fn buffers(&self) -> (&[u8], &[u8]) {
        (&self.input, self.answer.bytes())
    }
}

impl<G: Guest> Default for Instance<G> {
    fn default() -> Self {
        Self::new()
    }
}
