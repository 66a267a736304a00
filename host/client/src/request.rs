//! One request, tried until it is answered, refused for good, or out of time.
//!
//! Start at [`ask`].

use bytes::Bytes;
use protocol::{
    ErrorCode,
    control::{Request, Response},
};

use crate::{
    clock,
    error::AdminError,
    link::{Closed, Link},
    session::RequestError,
};

impl From<Closed> for AdminError {
    fn from(_: Closed) -> Self {
        AdminError::Closed
    }
}

/// What the last try ended with, for the error of a timeout.
#[derive(Debug, Clone)]
pub(crate) struct LastTry {
    pub(crate) text: String,
    /// The broker's code, where it refused.
    pub(crate) code: Option<ErrorCode>,
}

impl LastTry {
    pub(crate) fn without_code(text: impl Into<String>) -> LastTry {
        LastTry { text: text.into(), code: None }
    }
}

/// Sends a request on the control stream.
pub(crate) async fn ask(link: &Link, request: &Request) -> Result<Response, AdminError> {
    until_answered(link, request, None, Way::Control).await
}

/// Sends a request on a stream of its own, where it holds up nobody.
pub(crate) async fn ask_alone(link: &Link, request: &Request, file: Option<&Bytes>) -> Result<Response, AdminError> {
    until_answered(link, request, file, Way::Alone).await
}

#[derive(Clone, Copy)]
enum Way {
    Control,
    Alone,
}

async fn until_answered(
    link: &Link,
    request: &Request,
    file: Option<&Bytes>,
    way: Way,
) -> Result<Response, AdminError> {
    let waited = link.config().request_timeout;
    // Where there is no connection, the link says why.
    let mut last = LastTry::without_code("the broker has not answered yet");
    let mut lost_before = false;
    let tries = async {
        let mut backoff = link.backoff();
        let mut asked_to_wait;
        loop {
            let session = link.session().await?;
            let answer = match way {
                Way::Control => session.request(request).await,
                Way::Alone => session.request_alone(request, file).await,
            };
            match answer {
                Ok(response) => return Ok(response),
                Err(RequestError::WrongAnswer) => return Err(AdminError::WrongAnswer),
                Err(RequestError::Refused(error)) if lost_before && done_already(request, error.code) => {
                    return Ok(Response::Done);
                }
                Err(RequestError::Refused(error)) if !error.code.is_retryable() => {
                    return Err(AdminError::Refused(error));
                }
                Err(error) => {
                    lost_before |= matches!(error, RequestError::Lost(_));
                    asked_to_wait = error.retry_after();
                    last = LastTry { text: error.to_string(), code: error.code() };
                }
            }
            drop(session);
            tokio::time::sleep(backoff.wait().max(asked_to_wait)).await;
        }
    };
    let deadline = clock::now() + waited;
    match tokio::time::timeout_at(deadline, tries).await {
        Ok(answer) => answer,
        Err(_) => {
            let LastTry { text: last, code } = link.trouble().map_or(last, LastTry::without_code);
            Err(AdminError::TimedOut { waited, last, code })
        }
    }
}

/// Whether this refusal of a repeated request means that the first one, whose answer was lost, did it.
fn done_already(request: &Request, code: ErrorCode) -> bool {
    matches!(
        (request, code),
        (Request::DeleteTopic(_), ErrorCode::UnknownTopic)
            | (Request::DeletePlugin(_), ErrorCode::UnknownPlugin)
            | (Request::RemoveTransform(..), ErrorCode::UnknownTransform)
    )
}
