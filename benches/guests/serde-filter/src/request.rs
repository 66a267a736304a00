//! The decision itself, which the guest and the native code beside it share.

use serde::Deserialize;

/// One request to a web server.
#[derive(Deserialize)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
}

/// Whether a server answered it with an error.
pub(crate) fn went_wrong(json: &[u8]) -> serde_json::Result<bool> {
    let request: Request<'_> = serde_json::from_slice(json)?;
    Ok(request.status >= 500 && request.bytes > 0 && !request.method.is_empty() && request.path.starts_with('/'))
}
