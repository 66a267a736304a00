//! What the requests of control and admin streams do: each is one call of the broker.
//!
//! Owns no logic of its own. Which error becomes which code is decided in the broker's `errors.rs`.

use bytes::Bytes;
use protocol::{
    ErrorCode, PluginName, WireError,
    control::{self, Request, Response},
    limits::CONTROL_BODY_BYTES_MAX,
};

use crate::{backup, session::Session};

/// Does what a request asks for; an upload's bytes come with [`upload_plugin`].
pub(crate) async fn answer(session: &Session, request: Request) -> Result<Response, WireError> {
    let broker = &session.shared.broker;
    Ok(match request {
        Request::DescribeTopics(names) => Response::Topics(broker.describe_topics(&names)?),
        Request::CreateTopic(create) => Response::Topics(vec![broker.create_topic(create).await?]),
        Request::DeleteTopic(name) => {
            broker.delete_topic(name).await?;
            Response::Done
        }
        Request::AlterTopic(alter) => Response::Topics(vec![broker.alter_topic(alter).await?]),
        Request::FindOffset(place, spec) => Response::Offset(broker.partition(&place)?.find_offset(spec).await?),
        Request::InitProducer => {
            let (producer, epoch) = broker.init_producer().await?;
            Response::Producer(producer, epoch)
        }
        Request::ListPlugins => Response::Plugins(broker.list_plugins()),
        Request::DeletePlugin(name) => {
            broker.delete_plugin(name).await?;
            Response::Done
        }
        Request::DeployTransform(deploy) => Response::Transforms(vec![broker.deploy_transform(deploy).await?]),
        Request::AlterTransform(alter) => Response::Transforms(vec![broker.alter_transform(alter).await?]),
        Request::ResumeTransform(topic, name) => {
            Response::Transforms(vec![broker.resume_transform(topic, name).await?])
        }
        Request::RemoveTransform(topic, name) => {
            broker.remove_transform(topic, name).await?;
            Response::Done
        }
        Request::ListTransforms(topic) => Response::Transforms(broker.list_transforms(topic.as_ref())?),
        Request::UploadPlugin(upload) => {
            let text = format!("plugin `{}` came without its bytes", upload.name);
            return Err(WireError::new(ErrorCode::InvalidRequest, text));
        }
        Request::StartBackup(start) => {
            let beside = backup::beside(&session.shared.config.data_dir, start.with_identity);
            Response::Backup(Some(broker.start_backup(start, beside)?))
        }
        Request::BackupStatus => Response::Backup(broker.backup_status()),
        Request::Status => {
            let mut status = broker.status();
            status.connections = session.shared.connection_count() as u64;
            Response::Status(status)
        }
    })
}

/// Hands over an uploaded plugin.
pub(crate) async fn upload_plugin(session: &Session, name: PluginName, wasm: Bytes) -> Result<Response, WireError> {
    Ok(Response::Plugins(vec![session.shared.broker.upload_plugin(name, wasm).await?]))
}

/// An answer as it travels; one that no client would read becomes an error.
pub(crate) fn encode(response: &Response) -> Result<Vec<u8>, WireError> {
    let body = control::encode(response);
    if body.len() <= CONTROL_BODY_BYTES_MAX {
        return Ok(body);
    }
    let text = format!(
        "answer of {} bytes is larger than `control_body_bytes_max` ({CONTROL_BODY_BYTES_MAX}); ask for fewer at a time",
        body.len()
    );
    Err(WireError::new(ErrorCode::LimitExceeded, text))
}
