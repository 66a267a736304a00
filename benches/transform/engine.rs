//! A pipeline of one transform, and batches for it.

use std::{iter, sync::Arc};

use anyhow::Result;
use protocol::{
    BatchBuilder, Compression, Offset, RecordBatch, TopicName, TransformLimits, TransformSpec, limits::RECORD_BYTES_MAX,
};
use transform::{Pipeline, PipelineInput, PipelineOutput, Plugin, PluginHost, PluginHostOptions, Transform, Worker};

const TIMESTAMP: i64 = 1_700_000_000_000;

/// What is to be deployed.
#[derive(Clone, Copy)]
pub(crate) struct Deploy<'a> {
    pub(crate) config: &'a str,
    pub(crate) limits: TransformLimits,
}

impl Default for Deploy<'_> {
    fn default() -> Self {
        Deploy { config: "{}", limits: TransformLimits::default() }
    }
}

/// Everything one partition's worker needs.
pub(crate) struct Engine {
    host: PluginHost,
    topic: TopicName,
    worker: Worker,
    pipeline: Pipeline,
}

impl Engine {
    /// With a host of its own, and without a compiled cache.
    pub(crate) fn new(wasm: &[u8], deploy: Deploy<'_>) -> Result<Engine> {
        let host = PluginHost::new(&PluginHostOptions::without_cache())?;
        let plugin = host.load(wasm)?;
        Engine::on(&host, &plugin, deploy)
    }

    pub(crate) fn on(host: &PluginHost, plugin: &Plugin, deploy: Deploy<'_>) -> Result<Engine> {
        let spec = TransformSpec::new("bench".parse()?, "bench".parse()?, plugin.hash());
        let spec = TransformSpec { config: deploy.config.to_owned(), limits: deploy.limits, ..spec };
        let transform = Transform::new(host, plugin, spec)?;
        Ok(Engine {
            host: host.clone(),
            topic: "clicks".parse()?,
            worker: Worker::new(host),
            pipeline: Pipeline::new(vec![Arc::new(transform)]),
        })
    }

    pub(crate) fn run(&mut self, batch: &RecordBatch) -> PipelineOutput {
        let input = PipelineInput {
            topic: &self.topic,
            partition: 0,
            base_offset: Offset::ZERO,
            batch,
            max_record_bytes: RECORD_BYTES_MAX as u32,
            keyed_topics: &[],
        };
        self.pipeline.run(&self.worker, &input).expect("the batch passes")
    }

    /// The next batch gets a fresh instance.
    pub(crate) fn forget_instance(&mut self) {
        self.host.forget_idle();
    }
}

/// A batch of these values, not compressed.
pub(crate) fn batch(values: impl IntoIterator<Item = Vec<u8>>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (delta, value) in (0..).zip(values) {
        let timestamp = TIMESTAMP + i64::from(delta);
        builder.append_parts(delta, timestamp, None, Some(&value), iter::empty()).expect("the batch has room");
    }
    builder.finish(Offset::ZERO).expect("the batch is within limits")
}
