//! A pipeline run here, without a broker, on lines: for `plugin test` and for the record that the demo follows.
//!
//! Owns no behaviour of its own: it is the broker's engine with the broker's limits.
//!
//! Start at [`Trial::trace`].

use std::{path::PathBuf, sync::Arc};

use client::{Record, TopicName};
use protocol::{
    BatchBuilder, Compression, Offset, PluginName, TransformLimits, TransformName, TransformSpec,
    limits::RECORD_BYTES_CEILING,
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
    host: PluginHost,
    /// What the pipeline's stages are made of, in order.
    plugins: Vec<Plugin>,
    worker: Worker,
    pipeline: Pipeline,
    topic: TopicName,
}

impl Trial {
    /// Checks, compiles and starts every stage as a broker would; compiled forms are found and kept below `cache_dir`.
    pub(crate) fn new(cache_dir: Option<PathBuf>, topic: TopicName, stages: Vec<Stage<'_>>) -> anyhow::Result<Trial> {
        let compiler = Arc::new(ChildCompiler::default());
        let host = PluginHost::new(&PluginHostOptions { cache_dir, compiler, ..PluginHostOptions::without_cache() })?;
        let (mut plugins, mut transforms) = (Vec::new(), Vec::new());
        for stage in stages {
            let plugin = load(&host, &stage)?;
            transforms.push(start(&host, &plugin, spec(&stage, &plugin))?);
            plugins.push(plugin);
        }
        Ok(Trial { worker: Worker::new(&host), pipeline: Pipeline::new(transforms), host, plugins, topic })
    }

    /// Deploys every stage again: the next batch meets instances that no batch was given to before.
    pub(crate) fn renew(&mut self) -> anyhow::Result<()> {
        self.renew_with(|limits| limits)
    }

    /// Deploys every stage again, with other limits.
    pub(crate) fn renew_with(&mut self, change: impl Fn(TransformLimits) -> TransformLimits) -> anyhow::Result<()> {
        let stages = self.plugins.iter().zip(self.pipeline.stages());
        let renewed = stages.map(|(plugin, stage)| {
            let spec = stage.spec().clone();
            start(&self.host, plugin, TransformSpec { limits: change(spec.limits), ..spec })
        });
        let transforms: anyhow::Result<Vec<_>> = renewed.collect();
        self.pipeline = Pipeline::new(transforms?);
        self.worker = Worker::new(&self.host);
        Ok(())
    }

    /// Runs the lines as one batch whose first record has `base_offset`.
    pub(crate) fn trace(&mut self, lines: &[Vec<u8>], base_offset: Offset, now_ms: i64) -> anyhow::Result<Trace> {
        let records: Vec<_> = lines.iter().map(|line| Record::unkeyed(line.clone(), now_ms)).collect();
        self.trace_records(&records, base_offset)
    }

    /// Runs the records as one batch whose first one has `base_offset`.
    pub(crate) fn trace_records(&mut self, records: &[Record], base_offset: Offset) -> anyhow::Result<Trace> {
        let mut builder = BatchBuilder::new(Compression::None);
        for record in records {
            builder.append(record)?;
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

fn load(host: &PluginHost, stage: &Stage<'_>) -> anyhow::Result<Plugin> {
    host.load(stage.wasm).map_err(|error| {
        let text = format!("plugin `{}` is refused", stage.plugin);
        Failure::new(Exit::Refused, text, "give a core WASM module with the exports of the ABI (see `guest-sdk`)")
            .because(error)
            .into()
    })
}

fn start(host: &PluginHost, plugin: &Plugin, spec: TransformSpec) -> anyhow::Result<Arc<Transform>> {
    let name = spec.name.clone();
    let transform = Transform::new(host, plugin, spec).map_err(|error| {
        let text = format!("transform `{name}` cannot be started");
        Failure::new(Exit::Refused, text, "correct what is named; `weir plugin describe NAME` shows a schema")
            .because(error)
    })?;
    Ok(Arc::new(transform))
}

fn spec(stage: &Stage<'_>, plugin: &Plugin) -> TransformSpec {
    let spec = TransformSpec::new(stage.name.clone(), stage.plugin.clone(), plugin.hash());
    TransformSpec { config: stage.config.clone(), ..spec }
}
