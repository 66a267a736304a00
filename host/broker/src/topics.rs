//! Creating, changing, deleting and describing topics.
//!
//! Owns the rules of what a topic may be. See `admin.rs` for how a change becomes durable and visible.

use protocol::{
    OnError, PartitionDescription, TopicConfig, TopicDescription, TopicName, TransformSpec,
    control::{AlterTopic, CreateTopic},
    limits::{PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, RECORD_BYTES_CEILING},
};
use storage::{Commit, PartitionChange};

use crate::{
    TopicError,
    admin::{Admin, Planned},
    catalog::{TopicRow, put_topic},
    dead_letter,
    directory::Topic,
};

impl Admin {
    /// Creates a topic; one that exists alike is success.
    pub(crate) fn create_topic(&self, create: CreateTopic) -> Result<TopicDescription, TopicError> {
        let _turn = self.turn();
        let CreateTopic { name, partitions, config } = create;
        if let Some(topic) = self.directory.topic(&name) {
            return match difference(&topic.row, partitions, &config) {
                None => {
                    self.check_settled()?;
                    Ok(self.describe(&name, &topic))
                }
                Some(difference) => Err(TopicError::ExistsOtherwise { name, difference }),
            };
        }
        check_record_bytes(config.max_record_bytes)?;
        let row = self.new_topic(partitions, config)?;
        let planned = Planned { name: name.clone(), row, before: None };
        self.commit_topics([&planned])?;
        self.install(planned);
        self.describe_one(&name)
    }

    /// A row for a topic that does not exist yet, with fresh partitions.
    pub(crate) fn new_topic(&self, partitions: u32, config: TopicConfig) -> Result<TopicRow, TopicError> {
        if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
            return Err(TopicError::Partitions { partitions });
        }
        self.check_room(partitions)?;
        Ok(TopicRow { config, partitions: self.free_partitions(partitions), transforms: Vec::new() })
    }

    fn check_room(&self, more: u32) -> Result<(), TopicError> {
        let partitions = self.directory.partition_count() + more;
        match partitions > PARTITIONS_MAX {
            true => Err(TopicError::TooManyPartitions { partitions }),
            false => Ok(()),
        }
    }

    /// Changes a topic's settings.
    pub(crate) fn alter_topic(&self, alter: AlterTopic) -> Result<TopicDescription, TopicError> {
        let _turn = self.turn();
        let AlterTopic { name, retention, max_record_bytes, partitions } = alter;
        let topic = self.directory.topic(&name).ok_or_else(|| TopicError::Unknown(name.clone()))?;
        let mut row = topic.row.clone();
        if let Some(partitions) = partitions {
            self.grow(&name, &mut row, partitions)?;
        }
        if let Some(retention) = retention {
            row.config.retention = retention;
        }
        if let Some(bytes) = max_record_bytes {
            self.check_record_bytes_of(&name, &topic, bytes)?;
            row.config.max_record_bytes = bytes;
        }
        let dead_letters = self.raised_dead_letters(&name, &row);
        let planned = Planned { name: name.clone(), row, before: Some(topic) };
        self.commit_topics(dead_letters.iter().chain([&planned]))?;
        dead_letters.into_iter().chain([planned]).for_each(|planned| self.install(planned));
        self.describe_one(&name)
    }

    fn grow(&self, name: &TopicName, row: &mut TopicRow, asked: u32) -> Result<(), TopicError> {
        let partitions = row.partitions.len() as u32;
        if asked < partitions {
            return Err(TopicError::Shrink { name: name.clone(), partitions, asked });
        }
        if asked > PARTITIONS_PER_TOPIC_MAX {
            return Err(TopicError::Partitions { partitions: asked });
        }
        self.check_room(asked - partitions)?;
        row.partitions.extend(self.free_partitions(asked - partitions));
        Ok(())
    }

    /// A new record limit must suit the topics that transforms write to from here, and those they write from.
    fn check_record_bytes_of(&self, name: &TopicName, topic: &Topic, bytes: u32) -> Result<(), TopicError> {
        check_record_bytes(bytes)?;
        let unsuited = |other: TopicName, other_bytes| {
            Err(TopicError::RecordBytesOfTarget { name: name.clone(), bytes, other, other_bytes })
        };
        for target in topic.row.transforms.iter().flat_map(|spec| &spec.targets) {
            match self.directory.topic(target).map(|target| target.row.config.max_record_bytes) {
                Some(other_bytes) if other_bytes < bytes => return unsuited(target.clone(), other_bytes),
                _ => {}
            }
        }
        for (source, other) in self.directory.topics() {
            let writes = |spec: &TransformSpec| writes_to(&source, spec, name);
            let source_bytes = other.row.config.max_record_bytes;
            let is_dead_letter = dead_letter::topic_of(&source).is_ok_and(|topic| topic == *name);
            let needed = if is_dead_letter { dead_letter::max_record_bytes(source_bytes) } else { source_bytes };
            if other.row.transforms.iter().any(writes) && needed > bytes {
                return unsuited(source, source_bytes);
            }
        }
        Ok(())
    }

    /// The dead letter topic of a topic, if transforms use it and it now takes too little: with room for more.
    pub(crate) fn raised_dead_letters(&self, of: &TopicName, row: &TopicRow) -> Option<Planned> {
        let uses = row.transforms.iter().any(|spec| spec.on_error == OnError::DeadLetter);
        let name = dead_letter::topic_of(of).ok().filter(|_| uses)?;
        let topic = self.directory.topic(&name)?;
        let needed = dead_letter::max_record_bytes(row.config.max_record_bytes);
        if topic.row.config.max_record_bytes >= needed {
            return None;
        }
        let mut row = topic.row.clone();
        row.config.max_record_bytes = needed;
        Some(Planned { name, row, before: Some(topic) })
    }

    /// Deletes a topic, its records, and what its producers did there.
    pub(crate) fn delete_topic(&self, name: &TopicName) -> Result<(), TopicError> {
        let mut loaded = self.turn();
        let topic = self.directory.topic(name).ok_or_else(|| TopicError::Unknown(name.clone()))?;
        if let Some((source_topic, spec)) =
            self.directory.find_transform(|source, spec| source != name && writes_to(source, spec, name))
        {
            return Err(TopicError::Target { name: name.clone(), transform: spec.name, source_topic });
        }
        // Lanes first: what was submitted from them is in front of the deletion, and nothing comes behind it.
        let partitions = &topic.row.partitions;
        let mut commit = Commit::default();
        self.core.sequence(|sequencer, effects| {
            for id in partitions {
                let rows = sequencer.close_lane(*id, effects);
                commit.state.extend(rows);
            }
        });
        commit.partitions = partitions.iter().map(|id| PartitionChange::Delete { id: *id }).collect();
        commit.state.push(put_topic(name, None));
        if let Err(error) = self.commit(commit) {
            self.core.sequence(|sequencer, _| partitions.iter().for_each(|id| sequencer.reopen_lane(*id)));
            return Err(error.into());
        }
        self.core.sequence(|sequencer, _| partitions.iter().for_each(|id| sequencer.remove_lane(*id)));
        partitions.iter().for_each(|id| self.core.remove_slot(*id));
        self.directory.remove_topic(name);
        self.forget_unnamed(&mut loaded);
        Ok(())
    }

    /// Topics by name; all of them for an empty list.
    pub(crate) fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<TopicDescription>, TopicError> {
        if names.is_empty() {
            return Ok(self.directory.topics().iter().map(|(name, topic)| self.describe(name, topic)).collect());
        }
        names.iter().map(|name| self.describe_one(name)).collect()
    }

    fn describe_one(&self, name: &TopicName) -> Result<TopicDescription, TopicError> {
        let topic = self.directory.topic(name).ok_or_else(|| TopicError::Unknown(name.clone()))?;
        Ok(self.describe(name, &topic))
    }

    fn describe(&self, name: &TopicName, topic: &Topic) -> TopicDescription {
        let describe = |id: &protocol::PartitionId| {
            // A topic that is being deleted this moment has lost its partitions already.
            let place = self.core.store.partition(*id)?;
            Some(PartitionDescription {
                id: *id,
                log_start_offset: place.log_start_offset,
                high_watermark: place.high_watermark,
                bytes: place.bytes,
            })
        };
        let partitions = topic.row.partitions.iter().filter_map(describe).collect();
        TopicDescription { name: name.clone(), config: topic.row.config.clone(), partitions }
    }
}

/// Whether a transform of `source` puts records into `target`.
fn writes_to(source: &TopicName, spec: &TransformSpec, target: &TopicName) -> bool {
    let dead_letters = || dead_letter::topic_of(source).is_ok_and(|letters| letters == *target);
    spec.targets.contains(target) || (spec.writes_dead_letters() && dead_letters())
}

fn check_record_bytes(bytes: u32) -> Result<(), TopicError> {
    match (1..=RECORD_BYTES_CEILING).contains(&(bytes as usize)) {
        true => Ok(()),
        false => Err(TopicError::RecordBytes { bytes }),
    }
}

fn difference(row: &TopicRow, partitions: u32, config: &TopicConfig) -> Option<String> {
    let found = row.partitions.len() as u32;
    if found != partitions {
        return Some(format!("{found} partitions, not {partitions}"));
    }
    let (found, asked) = (row.config.retention.policy, config.retention.policy);
    if found != asked {
        return Some(format!("cleanup policy `{found}`, not `{asked}`"));
    }
    if row.config.retention != config.retention {
        return Some("another retention".to_owned());
    }
    let (found, asked) = (row.config.max_record_bytes, config.max_record_bytes);
    (found != asked).then(|| format!("`max_record_bytes` of {found}, not {asked}"))
}
