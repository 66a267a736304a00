//! Deploying, replacing, removing and listing transforms.
//!
//! Owns the rules of a pipeline's make-up. A replaced transform takes over at an offset: a batch that runs keeps the
//! pipeline it began with, the next one has the new one; nothing stops. See `admin.rs` for how a change becomes durable.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{
    BreakerPolicy, TopicName, TransformDescription, TransformLimits, TransformName, TransformSpec,
    control::{AlterTransform, DeployTransform, Placement},
    limits::{PIPELINE_STAGES_MAX, TRANSFORM_TARGETS_MAX},
};
use transform::Transform;

use crate::{
    DeployError,
    admin::{Admin, Planned},
    catalog::TopicRow,
    dead_letter,
    deployment::{self, Deployment},
    directory::Topic,
};

impl Admin {
    /// Deploys a transform, or replaces the one of its name.
    pub(crate) fn deploy_transform(&self, deploy: DeployTransform) -> Result<TransformDescription, DeployError> {
        let mut loaded = self.turn();
        let DeployTransform { topic: name, placement, .. } = &deploy;
        let topic = self.directory.topic(name).ok_or_else(|| DeployError::UnknownTopic(name.clone()))?;
        let spec = self.specify(&deploy)?;
        self.check_targets(name, &topic, &spec)?;
        let stage = place(name, &topic.row.transforms, &spec.name, placement)?;
        let transform = self.make_transform(&mut loaded, spec)?;

        let mut transforms = topic.deployment.transforms.clone();
        transforms.retain(|other| other.spec().name != transform.spec().name);
        transforms.insert(stage, transform.clone());
        self.redeploy(name, &topic, transforms)?;
        self.forget_unnamed(&mut loaded);
        Ok(deployment::describe(name, stage, &transform))
    }

    /// Changes limits and policies of a transform: the next batch runs with them.
    pub(crate) fn alter_transform(&self, alter: &AlterTransform) -> Result<TransformDescription, DeployError> {
        let _turn = self.turn();
        let (topic, stage) = self.find_stage(&alter.topic, &alter.name)?;
        let mut transforms = topic.deployment.transforms.clone();
        let before = &transforms[stage];
        let altered = before.altered(&self.host, alter.apply(before.spec().clone()));
        let altered = Arc::new(altered.map_err(|error| DeployError::Refused(Box::new(error)))?);
        transforms[stage] = altered.clone();
        self.redeploy(&alter.topic, &topic, transforms)?;
        altered.take_over();
        Ok(deployment::describe(&alter.topic, stage, &altered))
    }

    /// Closes a transform's breaker, and lets what it paused go on. Nothing of it is durable: a start does the same.
    pub(crate) fn resume_transform(
        &self,
        name: &TopicName,
        transform: &TransformName,
    ) -> Result<TransformDescription, DeployError> {
        let _turn = self.turn();
        let (topic, stage) = self.find_stage(name, transform)?;
        let transform = &topic.deployment.transforms[stage];
        transform.resume();
        self.core.sequence(|sequencer, _| topic.row.partitions.iter().for_each(|id| sequencer.set_piped(*id, true)));
        Ok(deployment::describe(name, stage, transform))
    }

    fn find_stage(&self, name: &TopicName, transform: &TransformName) -> Result<(Arc<Topic>, usize), DeployError> {
        let topic = self.directory.topic(name).ok_or_else(|| DeployError::UnknownTopic(name.clone()))?;
        let found = topic.deployment.transforms.iter().position(|other| other.spec().name == *transform);
        let unknown = || DeployError::UnknownTransform { topic: name.clone(), transform: transform.clone() };
        found.ok_or_else(unknown).map(|stage| (topic, stage))
    }

    /// Removes a transform from a topic's pipeline.
    pub(crate) fn remove_transform(&self, name: &TopicName, transform: &TransformName) -> Result<(), DeployError> {
        let mut loaded = self.turn();
        let topic = self.directory.topic(name).ok_or_else(|| DeployError::UnknownTopic(name.clone()))?;
        let mut transforms = topic.deployment.transforms.clone();
        transforms.retain(|other| other.spec().name != *transform);
        if transforms.len() == topic.deployment.transforms.len() {
            return Err(DeployError::UnknownTransform { topic: name.clone(), transform: transform.clone() });
        }
        self.redeploy(name, &topic, transforms)?;
        self.forget_unnamed(&mut loaded);
        Ok(())
    }

    /// Transforms by topic and stage; of all topics for `None`.
    pub(crate) fn list_transforms(&self, name: Option<&TopicName>) -> Result<Vec<TransformDescription>, DeployError> {
        let Some(name) = name else {
            let topics = self.directory.topics();
            return Ok(topics.iter().flat_map(|(name, topic)| topic.deployment.describe(name)).collect());
        };
        let topic = self.directory.topic(name).ok_or_else(|| DeployError::UnknownTopic(name.clone()))?;
        Ok(topic.deployment.describe(name))
    }

    fn specify(&self, deploy: &DeployTransform) -> Result<TransformSpec, DeployError> {
        let plugin = deploy.plugin.clone();
        let row = self.directory.plugin(&plugin).ok_or_else(|| DeployError::UnknownPlugin(plugin.clone()))?;
        let name = match &deploy.name {
            Some(name) => name.clone(),
            None => TransformName::new(plugin.as_str()).map_err(DeployError::Name)?,
        };
        Ok(TransformSpec {
            name,
            plugin,
            plugin_hash: row.hash,
            config: deploy.config.clone(),
            on_error: deploy.on_error,
            limits: deploy.limits.apply(TransformLimits::default()),
            targets: deploy.targets.clone(),
            isolation: deploy.isolation,
            breaker: deploy.breaker.unwrap_or_else(|| BreakerPolicy::beside(deploy.on_error)),
        })
    }

    fn check_targets(&self, name: &TopicName, topic: &Topic, spec: &TransformSpec) -> Result<(), DeployError> {
        let targets = spec.targets.len();
        if targets > TRANSFORM_TARGETS_MAX {
            return Err(DeployError::TooManyTargets { targets });
        }
        let mut named = BTreeSet::from([name]);
        for target in &spec.targets {
            if !named.insert(target) {
                return Err(DeployError::TargetTwice(target.clone()));
            }
            let found = self.directory.topic(target).ok_or_else(|| DeployError::UnknownTarget(target.clone()))?;
            let (target_bytes, topic_bytes) = (found.row.config.max_record_bytes, topic.row.config.max_record_bytes);
            if target_bytes < topic_bytes {
                let (target, topic) = (target.clone(), name.clone());
                return Err(DeployError::TargetTooSmall { target, target_bytes, topic, topic_bytes });
            }
        }
        Ok(())
    }

    /// Makes these the topic's transforms, and the dead letter topic exist if one of them needs it, in one commit.
    fn redeploy(
        &self,
        name: &TopicName,
        topic: &Arc<Topic>,
        transforms: Vec<Arc<Transform>>,
    ) -> Result<(), DeployError> {
        let specs = transforms.iter().map(|transform| transform.spec().clone()).collect();
        let row = TopicRow { transforms: specs, ..topic.row.clone() };
        let dead_letters = self.dead_letters(name, &row)?;
        let planned = Planned { name: name.clone(), row, before: Some(topic.clone()) };
        self.commit_topics(dead_letters.iter().chain([&planned]))?;
        // First where dead letters go, then what makes them.
        dead_letters.into_iter().for_each(|planned| self.install(planned));
        self.install_topic(name, planned.row, Arc::new(Deployment::new(transforms)));
        Ok(())
    }

    /// The dead letter topic that has to be created, or to take larger records, for this row.
    fn dead_letters(&self, of: &TopicName, row: &TopicRow) -> Result<Option<Planned>, DeployError> {
        if !row.transforms.iter().any(TransformSpec::writes_dead_letters) {
            return Ok(None);
        }
        let failed = |source| DeployError::DeadLetter { topic: of.clone(), source };
        let name = dead_letter::topic_of(of).map_err(|error| failed(Box::new(error)))?;
        if self.directory.topic(&name).is_some() {
            return Ok(self.raised_dead_letters(of, row));
        }
        let row = self.new_topic(row.partitions.len() as u32, dead_letter::config(&row.config));
        let row = row.map_err(|error| failed(Box::new(error)))?;
        Ok(Some(Planned { name, row, before: None }))
    }
}

/// Where among the others (without its former self) a transform goes.
fn place(
    topic: &TopicName,
    specs: &[TransformSpec],
    name: &TransformName,
    placement: &Placement,
) -> Result<usize, DeployError> {
    let former = specs.iter().position(|spec| spec.name == *name);
    if former.is_none() && specs.len() >= PIPELINE_STAGES_MAX {
        return Err(DeployError::TooManyStages(topic.clone()));
    }
    let beside = match placement {
        Placement::Last => return Ok(former.unwrap_or(specs.len())),
        Placement::Before(beside) | Placement::After(beside) => beside,
    };
    if beside == name {
        return Err(DeployError::BesideItself(name.clone()));
    }
    let unknown = || DeployError::UnknownTransform { topic: topic.clone(), transform: beside.clone() };
    let mut others = specs.iter().filter(|spec| spec.name != *name);
    let at = others.position(|spec| spec.name == *beside).ok_or_else(unknown)?;
    Ok(at + usize::from(matches!(placement, Placement::After(_))))
}
