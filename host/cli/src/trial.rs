//! A pipeline run here, without a broker, on lines: for `plugin test` and for the record that the demo follows.
//!
//! Owns no behaviour of its own: it is the broker's engine with the broker's limits.
//!
//! Start at [`Trial::trace`].

use std::{path::PathBuf, sync::Arc};

use client::{Record, TopicName};
use protocol::{
    BatchBuilder, Compression, Offset, PluginName, TransformName, TransformSpec, limits::RECORD_BYTES_CEILING,
};
use transform::{Pipeline, PipelineInput, Plugin, PluginHost, PluginHostOptions, Trace, Transform, Worker};

use crate::{
    compiler::ChildCompiler,
    exit::{Exit, Failure},
};

/// One stage to be.
pub(crate) struct Stage<'a> {
    pub(crate) name: TransformName,
    pub(crate) plugin: PluginName,
    pub(crate) wasm: &'a [u8],
    pub(crate) config: String,
}

/// A pipeline, ready to run.
pub(crate) struct Trial {
    worker: Worker,
    pipeline: Pipeline,
    topic: TopicName,
}

impl Trial {
    /// Checks, compiles and starts every stage as a broker would; compiled forms are found and kept below `cache_dir`.
    pub(crate) fn new(cache_dir: Option<PathBuf>, topic: TopicName, stages: Vec<Stage<'_>>) -> anyhow::Result<Trial> {
        let compiler = Arc::new(ChildCompiler::default());
        let host = PluginHost::new(&PluginHostOptions { cache_dir, compiler, ..PluginHostOptions::without_cache() })?;
        let transforms: anyhow::Result<Vec<_>> = stages.into_iter().map(|stage| start(&host, stage)).collect();
        Ok(Trial { worker: Worker::new(&host), pipeline: Pipeline::new(transforms?), topic })
    }

    /// Runs the lines as one batch whose first record has `base_offset`.
    pub(crate) fn trace(&mut self, lines: &[Vec<u8>], base_offset: Offset, now_ms: i64) -> anyhow::Result<Trace> {
        let mut builder = BatchBuilder::new(Compression::None);
        for line in lines {
            builder.append(&Record::unkeyed(line.clone(), now_ms))?;
        }
        let batch = builder.finish(base_offset)?;
        let input = PipelineInput {
            topic: &self.topic,
            partition: 0,
            base_offset,
            batch: &batch,
            max_record_bytes: RECORD_BYTES_CEILING as u32,
            keyed_topics: &[],
        };
        Ok(self.pipeline.trace(&self.worker, &input)?)
    }
}

fn start(host: &PluginHost, stage: Stage<'_>) -> anyhow::Result<Arc<Transform>> {
    let plugin = host.load(stage.wasm).map_err(|error| {
        let text = format!("plugin `{}` is refused", stage.plugin);
        Failure::new(Exit::Refused, text, "give a core WASM module with the exports of the ABI (see `guest-sdk`)")
            .because(error)
    })?;
    let spec = spec(&stage, &plugin);
    let transform = Transform::new(host, &plugin, spec).map_err(|error| {
        let text = format!("transform `{}` cannot be started", stage.name);
        Failure::new(Exit::Refused, text, "correct what is named; `weir plugin describe NAME` shows a schema")
            .because(error)
    })?;
    Ok(Arc::new(transform))
}

fn spec(stage: &Stage<'_>, plugin: &Plugin) -> TransformSpec {
    let spec = TransformSpec::new(stage.name.clone(), stage.plugin.clone(), plugin.hash());
    TransformSpec { config: stage.config.clone(), ..spec }
}
