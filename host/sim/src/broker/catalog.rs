//! What topics, plugins and transforms there are, and what each operation makes of them.
//!
//! A value: the operator says what it asks for, and compares what the broker shows with what may be there.
//!
//! Start at [`Catalog::after`].

use std::collections::BTreeMap;

use ::broker::Broker;
use protocol::{
    BreakerPolicy, OnError, PluginHash, PluginName, TopicConfig, TopicName, TransformLimits, TransformName,
    TransformSpec,
    control::{AlterTopic, CreateTopic, DeployTransform, Placement},
};

use super::guests;

/// Everything an operator sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Catalog {
    pub(super) topics: BTreeMap<TopicName, Topic>,
    pub(super) plugins: BTreeMap<PluginName, PluginHash>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) partitions: u32,
    /// The default for dead letter topics: the broker makes and raises them.
    pub(super) config: TopicConfig,
    pub(super) transforms: Vec<TransformSpec>,
}

/// Something an operator asks for.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Create(CreateTopic),
    Delete(TopicName),
    Alter(AlterTopic),
    /// The module of this number, by its own name.
    Upload(usize),
    DeletePlugin(PluginName),
    Deploy(DeployTransform),
    Remove(TopicName, TransformName),
}

fn is_dead_letters(topic: &TopicName) -> bool {
    topic.as_str().ends_with(".dlq")
}

impl Catalog {
    /// What the broker shows.
    pub(super) fn of(broker: &Broker) -> Catalog {
        let mut catalog = Catalog::default();
        for topic in broker.describe_topics(&[]).unwrap_or_default() {
            let config = if is_dead_letters(&topic.name) { TopicConfig::default() } else { topic.config };
            let partitions = topic.partitions.len() as u32;
            catalog.topics.insert(topic.name, Topic { partitions, config, transforms: Vec::new() });
        }
        for transform in broker.list_transforms(None).unwrap_or_default() {
            if let Some(topic) = catalog.topics.get_mut(&transform.topic) {
                topic.transforms.push(transform.spec);
            }
        }
        catalog.plugins = broker.list_plugins().into_iter().map(|plugin| (plugin.name, plugin.hash)).collect();
        catalog
    }

    /// What is there when an operation is done.
    pub(super) fn after(&self, operation: &Operation) -> Catalog {
        let mut after = self.clone();
        match operation {
            Operation::Create(CreateTopic { name, partitions, config }) => {
                let fresh = || Topic { partitions: *partitions, config: config.clone(), transforms: Vec::new() };
                after.topics.entry(name.clone()).or_insert_with(fresh);
            }
            Operation::Delete(name) => drop(after.topics.remove(name)),
            Operation::Alter(alter) => {
                if let Some(topic) = after.topics.get_mut(&alter.name) {
                    topic.partitions = alter.partitions.unwrap_or(topic.partitions);
                    topic.config.retention = alter.retention.unwrap_or(topic.config.retention);
                    topic.config.max_record_bytes = alter.max_record_bytes.unwrap_or(topic.config.max_record_bytes);
                }
            }
            Operation::Upload(number) => {
                let guest = &guests::all()[*number];
                after.plugins.insert(guest.name.clone(), guest.hash);
            }
            Operation::DeletePlugin(name) => drop(after.plugins.remove(name)),
            Operation::Deploy(deploy) => after.deploy(deploy),
            Operation::Remove(topic, name) => {
                if let Some(topic) = after.topics.get_mut(topic) {
                    topic.transforms.retain(|spec| spec.name != *name);
                }
            }
        }
        after
    }

    fn deploy(&mut self, deploy: &DeployTransform) {
        let Some(hash) = self.plugins.get(&deploy.plugin).copied() else { return };
        let Some(topic) = self.topics.get_mut(&deploy.topic) else { return };
        let name = deploy.name.clone().expect("the operator names its transforms");
        let former = topic.transforms.iter().position(|spec| spec.name == name);
        topic.transforms.retain(|spec| spec.name != name);
        let beside = |beside: &TransformName| topic.transforms.iter().position(|spec| spec.name == *beside);
        let at = match &deploy.placement {
            Placement::Last => former,
            Placement::Before(name) => beside(name),
            Placement::After(name) => beside(name).map(|at| at + 1),
        };
        let spec = TransformSpec {
            config: deploy.config.clone(),
            on_error: deploy.on_error,
            limits: deploy.limits.apply(TransformLimits::default()),
            targets: deploy.targets.clone(),
            isolation: deploy.isolation,
            breaker: deploy.breaker.unwrap_or_else(|| BreakerPolicy::beside(deploy.on_error)),
            ..TransformSpec::new(name, deploy.plugin.clone(), hash)
        };
        let at = at.unwrap_or(topic.transforms.len()).min(topic.transforms.len());
        topic.transforms.insert(at, spec);
        if topic.transforms.iter().any(|spec| spec.on_error == OnError::DeadLetter) {
            let partitions = topic.partitions;
            let letters = deploy.topic.dead_letter().expect("names here are short");
            let fresh = || Topic { partitions, config: TopicConfig::default(), transforms: Vec::new() };
            self.topics.entry(letters).or_insert_with(fresh);
        }
    }

    /// The transforms of a topic.
    pub(super) fn transforms(&self, topic: &TopicName) -> &[TransformSpec] {
        self.topics.get(topic).map_or(&[], |topic| &topic.transforms)
    }
}

/// How two catalogs differ, for people.
pub(super) fn difference(left: &Catalog, right: &Catalog) -> String {
    let plugins = format!("plugins {:?} and {:?}", left.plugins.keys(), right.plugins.keys());
    let names = left.topics.keys().chain(right.topics.keys());
    let topic = names.into_iter().find(|name| left.topics.get(*name) != right.topics.get(*name));
    match topic {
        None if left.plugins == right.plugins => "nothing".to_owned(),
        None => plugins,
        Some(name) => format!("topic `{name}`: {:?} and {:?}", left.topics.get(name), right.topics.get(name)),
    }
}
