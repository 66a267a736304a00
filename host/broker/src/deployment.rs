//! The transforms of a topic as they run: what a batch that starts now goes through.
//!
//! Owns nothing that changes: a replaced transform is a new deployment, in which the others are the same.

use std::sync::Arc;

use protocol::{TopicName, TransformDescription};
use transform::{Pipeline, Transform};

/// A topic's pipeline and its parts.
#[derive(Debug, Default)]
pub(crate) struct Deployment {
    pub(crate) transforms: Vec<Arc<Transform>>,
    pub(crate) pipeline: Pipeline,
}

impl Deployment {
    /// The pipeline of these transforms, in order.
    pub(crate) fn new(transforms: Vec<Arc<Transform>>) -> Deployment {
        let pipeline = Pipeline::new(transforms.clone());
        Deployment { transforms, pipeline }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.transforms.is_empty()
    }

    /// The transforms as an operator sees them.
    pub(crate) fn describe(&self, topic: &TopicName) -> Vec<TransformDescription> {
        self.transforms.iter().enumerate().map(|(stage, transform)| describe(topic, stage, transform)).collect()
    }
}

/// A transform of a topic as an operator sees it.
pub(crate) fn describe(topic: &TopicName, stage: usize, transform: &Transform) -> TransformDescription {
    TransformDescription {
        topic: topic.clone(),
        stage: stage as u32,
        spec: transform.spec().clone(),
        stats: transform.stats(),
        usage: transform.describe_usage(),
    }
}
