//! Admin streams: one request, one answer; closing the stream cancels.
//!
//! Owns the upload of a plugin: its bytes follow the request in UPLOAD frames and are compared with the size and the hash
//! that were announced before anything is done with them.
//!
//! Start at [`serve`].

use bytes::{Bytes, BytesMut};
use protocol::{
    ErrorCode, PluginHash, WireError,
    control::{Request, Response, UploadPlugin},
    frame::FrameKind,
    limits::PLUGIN_BYTES_MAX,
};
use quinn::SendStream;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::frames::{Address, Frame, FrameReader, end, end_with_error, frame};
use crate::{
    requests,
    session::{Session, StreamEnd, decode_body},
};

/// Serves one admin stream whose first frame is `first`.
pub(crate) async fn serve(
    session: &Session,
    first: Frame,
    mut reader: FrameReader,
    mut send: SendStream,
) -> Result<(), StreamEnd> {
    let address = Address::sequence(first.prefix.sequence);
    let request: Request = decode_body(&first)?;
    let stopped = send.stopped();
    let answer = async {
        match request {
            Request::UploadPlugin(upload) => upload_plugin(session, &mut reader, upload).await,
            request => Ok(requests::answer(session, request).await),
        }
    };
    let answer = tokio::select! {
        answer = answer => answer?,
        // Nobody waits for the answer any more; what has become durable stays.
        _ = stopped => return Err(StreamEnd::Lost),
    };
    match answer.and_then(|response| requests::encode(&response)) {
        Ok(body) => {
            send.write_chunk(frame(FrameKind::Response, address, &[], &body)).await?;
            end(&mut send).await;
            Ok(())
        }
        Err(error) => end_with_error(&mut send, address, &error).await,
    }
}

/// Takes the file that follows, then hands it over.
async fn upload_plugin(
    session: &Session,
    reader: &mut FrameReader,
    upload: UploadPlugin,
) -> Result<Result<Response, WireError>, StreamEnd> {
    if upload.wasm_bytes > PLUGIN_BYTES_MAX as u64 {
        return Ok(Err(WireError::new(
            ErrorCode::LimitExceeded,
            format!(
                "plugin `{}` of {} bytes is larger than `plugin_bytes_max` ({PLUGIN_BYTES_MAX})",
                upload.name, upload.wasm_bytes
            ),
        )));
    }
    let wasm = receive(session, reader, upload.wasm_bytes as usize).await?;
    let hash = PluginHash(Sha256::digest(&wasm).into());
    if hash != upload.hash {
        let text = format!("plugin `{}` arrived with SHA-256 {hash}, not {}", upload.name, upload.hash);
        return Ok(Err(WireError::new(ErrorCode::InvalidRequest, text)));
    }
    Ok(requests::upload_plugin(session, upload.name, wasm).await)
}

/// Reads UPLOAD frames until `length` bytes are there.
async fn receive(session: &Session, reader: &mut FrameReader, length: usize) -> Result<Bytes, StreamEnd> {
    let mut file = BytesMut::new();
    while file.len() < length {
        let frame = timeout(session.shared.stall_max(), reader.frame());
        let frame = match frame.await {
            Ok(frame) => frame?.ok_or(StreamEnd::Lost)?,
            Err(_) => return Err(StreamEnd::Lost),
        };
        if frame.prefix.kind != FrameKind::Upload {
            return Err(StreamEnd::out_of_place(frame.prefix.kind));
        }
        if frame.body.len() > length - file.len() {
            let text = format!("the upload is longer than the {length} bytes that were announced");
            return Err(StreamEnd::violation(text));
        }
        file.extend_from_slice(&frame.body);
    }
    Ok(file.freeze())
}
