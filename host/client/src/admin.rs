//! Administration: topics, plugins, transforms, the broker's state.
//!
//! Every change is durable when its future is ready. A request is repeated across reconnects for as long as
//! [`ClientConfig::request_timeout`](crate::ClientConfig::request_timeout) allows; that is harmless, because what exists
//! alike is created, and what is gone is deleted.
//!
//! Start at [`Admin`].

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    ErrorCode, Offset, PluginDescription, PluginHash, PluginName, TopicDescription, TopicName, TopicPartition,
    TransformDescription, TransformName, WireError,
    control::{
        AlterTopic, AlterTransform, BackupDone, BackupStatus, CreateTopic, DeployTransform, OffsetSpec, Request,
        Response, StartBackup, Status, UploadPlugin,
    },
    limits::PLUGIN_BYTES_MAX,
};
use sha2::{Digest, Sha256};

use crate::{
    error::AdminError,
    link::Link,
    request::{ask, ask_alone},
};

/// What an operator can do. Cheap to clone.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use client::{CreateTopic, TopicConfig};
///
/// let admin = client.admin();
/// admin.create_topic(CreateTopic { name: "clicks".parse()?, partitions: 4, config: TopicConfig::default() }).await?;
/// for topic in admin.topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Admin {
    link: Link,
}

impl Admin {
    pub(crate) fn new(link: Link) -> Admin {
        Admin { link }
    }

    /// Creates a topic. One that exists alike is success.
    ///
    /// # Errors
    /// When the broker refuses or does not answer in time; so for every method.
    pub async fn create_topic(&self, topic: CreateTopic) -> Result<TopicDescription, AdminError> {
        one_topic(ask_alone(&self.link, &Request::CreateTopic(topic), None).await?)
    }

    /// Changes a topic's settings.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn alter_topic(&self, change: AlterTopic) -> Result<TopicDescription, AdminError> {
        one_topic(ask_alone(&self.link, &Request::AlterTopic(change), None).await?)
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), AdminError> {
        done(ask_alone(&self.link, &Request::DeleteTopic(topic.clone()), None).await?)
    }

    /// All topics with their partitions, by name.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn topics(&self) -> Result<Vec<TopicDescription>, AdminError> {
        topics(ask(&self.link, &Request::DescribeTopics(Vec::new())).await?)
    }

    /// One topic with its partitions.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic); with [`ErrorCode::UnknownTopic`]
    /// when there is none of this name.
    pub async fn topic(&self, name: &TopicName) -> Result<TopicDescription, AdminError> {
        one_topic(ask(&self.link, &Request::DescribeTopics(vec![name.clone()])).await?)
    }

    /// Turns a place in a partition into an offset.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn find_offset(&self, partition: &TopicPartition, place: OffsetSpec) -> Result<Offset, AdminError> {
        match ask(&self.link, &Request::FindOffset(partition.clone(), place)).await? {
            Response::Offset(offset) => Ok(offset),
            _ => Err(AdminError::WrongAnswer),
        }
    }

    /// Uploads a plugin: the bytes of a WASM module. The broker checks and compiles it before it answers.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn upload_plugin(
        &self,
        name: PluginName,
        wasm: impl Into<Bytes>,
    ) -> Result<PluginDescription, AdminError> {
        let wasm = wasm.into();
        if wasm.len() > PLUGIN_BYTES_MAX {
            return Err(AdminError::PluginTooLarge { bytes: wasm.len(), limit: PLUGIN_BYTES_MAX });
        }
        let hash = PluginHash(Sha256::digest(&wasm).into());
        let request = Request::UploadPlugin(UploadPlugin { name, wasm_bytes: wasm.len() as u64, hash });
        let mut plugins = plugins(ask_alone(&self.link, &request, Some(&wasm)).await?)?;
        plugins.pop().ok_or(AdminError::WrongAnswer)
    }

    /// All plugins, by name.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn plugins(&self) -> Result<Vec<PluginDescription>, AdminError> {
        plugins(ask(&self.link, &Request::ListPlugins).await?)
    }

    /// Deletes a plugin that no transform uses.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn delete_plugin(&self, name: &PluginName) -> Result<(), AdminError> {
        done(ask_alone(&self.link, &Request::DeletePlugin(name.clone()), None).await?)
    }

    /// Deploys a transform on a topic, or replaces the one of the same name.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn deploy_transform(&self, transform: DeployTransform) -> Result<TransformDescription, AdminError> {
        let mut answer = transforms(ask_alone(&self.link, &Request::DeployTransform(transform), None).await?)?;
        answer.pop().ok_or(AdminError::WrongAnswer)
    }

    /// Changes limits and policies of a transform while it runs: the next batch meets them, and what it has done goes on to
    /// be counted.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn alter_transform(&self, change: AlterTransform) -> Result<TransformDescription, AdminError> {
        let mut answer = transforms(ask_alone(&self.link, &Request::AlterTransform(change), None).await?)?;
        answer.pop().ok_or(AdminError::WrongAnswer)
    }

    /// Closes a transform's breaker, and lets partitions that it paused go on.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn resume_transform(
        &self,
        topic: &TopicName,
        name: &TransformName,
    ) -> Result<TransformDescription, AdminError> {
        let request = Request::ResumeTransform(topic.clone(), name.clone());
        let mut answer = transforms(ask_alone(&self.link, &request, None).await?)?;
        answer.pop().ok_or(AdminError::WrongAnswer)
    }

    /// Removes a transform from a topic's pipeline.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn remove_transform(&self, topic: &TopicName, name: &TransformName) -> Result<(), AdminError> {
        done(ask_alone(&self.link, &Request::RemoveTransform(topic.clone(), name.clone()), None).await?)
    }

    /// The transforms of a topic, or of all topics, in order, with what they have done.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn transforms(&self, topic: Option<&TopicName>) -> Result<Vec<TransformDescription>, AdminError> {
        transforms(ask(&self.link, &Request::ListTransforms(topic.cloned())).await?)
    }

    /// How the broker is.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn status(&self) -> Result<Status, AdminError> {
        match ask(&self.link, &Request::Status).await? {
            Response::Status(status) => Ok(status),
            _ => Err(AdminError::WrongAnswer),
        }
    }

    /// Makes a backup in a directory of the broker's host, and waits until it is complete; `progress` is told how far it
    /// is. When the future is dropped, the broker goes on with it.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic); with [`ErrorCode::BackupFailed`] when it was begun and not made.
    pub async fn backup(
        &self,
        backup: StartBackup,
        mut progress: impl FnMut(&BackupStatus),
    ) -> Result<BackupDone, AdminError> {
        let begun = one_backup(ask_alone(&self.link, &Request::StartBackup(backup), None).await?)?;
        let number = begun.number;
        let mut status = begun;
        loop {
            progress(&status);
            match (status.done, status.error) {
                (Some(done), _) => return Ok(done),
                (None, Some(error)) => return Err(AdminError::Refused(error)),
                (None, None) => tokio::time::sleep(BACKUP_POLL_INTERVAL).await,
            }
            status = match self.backup_status().await? {
                Some(status) if status.number == number => status,
                _ => {
                    let text = "the broker was restarted before the backup was complete";
                    return Err(AdminError::Refused(WireError::new(ErrorCode::BackupFailed, text)));
                }
            };
        }
    }

    /// How far the last backup is; `None` when there was none since the broker was started.
    ///
    /// # Errors
    /// See [`create_topic`](Admin::create_topic).
    pub async fn backup_status(&self) -> Result<Option<BackupStatus>, AdminError> {
        match ask(&self.link, &Request::BackupStatus).await? {
            Response::Backup(status) => Ok(status),
            _ => Err(AdminError::WrongAnswer),
        }
    }
}

/// How often a broker is asked how far a backup is.
const BACKUP_POLL_INTERVAL: Duration = Duration::from_millis(100);

fn one_backup(response: Response) -> Result<BackupStatus, AdminError> {
    match response {
        Response::Backup(Some(status)) => Ok(status),
        _ => Err(AdminError::WrongAnswer),
    }
}

fn done(response: Response) -> Result<(), AdminError> {
    match response {
        Response::Done => Ok(()),
        _ => Err(AdminError::WrongAnswer),
    }
}

fn topics(response: Response) -> Result<Vec<TopicDescription>, AdminError> {
    match response {
        Response::Topics(topics) => Ok(topics),
        _ => Err(AdminError::WrongAnswer),
    }
}

fn one_topic(response: Response) -> Result<TopicDescription, AdminError> {
    topics(response)?.pop().ok_or(AdminError::WrongAnswer)
}

fn plugins(response: Response) -> Result<Vec<PluginDescription>, AdminError> {
    match response {
        Response::Plugins(plugins) => Ok(plugins),
        _ => Err(AdminError::WrongAnswer),
    }
}

fn transforms(response: Response) -> Result<Vec<TransformDescription>, AdminError> {
    match response {
        Response::Transforms(transforms) => Ok(transforms),
        _ => Err(AdminError::WrongAnswer),
    }
}
