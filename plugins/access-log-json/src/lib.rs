//! Turns lines of an Apache or nginx access log, common or combined format, into JSON.
//!
//! ```text
//! 203.0.113.9 - ann [17/May/2015:10:05:03 +0200] "GET /a?b=c HTTP/1.1" 200 1234 "http://from.example/" "curl/8.5.0"
//! {"remote_addr":"203.0.113.9","time":"2015-05-17T10:05:03+02:00","method":"GET","path":"/a?b=c","protocol":"HTTP/1.1",
//!  "status":200,"bytes":1234,"referer":"http://from.example/","user_agent":"curl/8.5.0"}
//! ```
//!
//! - No configuration.
//! - `bytes`, `referer` and `user_agent` are null where the line has `-`. The common format has no `referer` and no
//!   `user_agent`, so neither has its JSON. The two names of the user (identd's and the authenticated one) are left out.
//! - Text stays as the server wrote it: `\xe4` and `\"` are its escapes, and become `\\xe4` and `\\\"` in JSON.
//! - Strict: a line that is anything else is a failure, with code 1 and a text that says what was expected and where.
//! - One line end behind the line is ignored.

mod line;
mod time;

use guest_sdk::{Failure, NewValue, Record, guest};
use line::Line;

guest! { map: to_json }

/// The line is not in the format.
const MALFORMED: u16 = 1;

fn to_json(record: &Record<'_>, json: &mut NewValue<'_>) -> Result<(), Failure> {
    let value = record.value().ok_or_else(|| Failure::new(MALFORMED, "the record has no value"))?;
    let line = Line::parse(value).map_err(|error| Failure::new(MALFORMED, error.to_string()))?;
    write(&line, json);
    Ok(())
}

fn write(line: &Line<'_>, json: &mut NewValue<'_>) {
    json.push_str("{\"remote_addr\":");
    json.push_json_str(line.remote_addr);
    json.push_str(",\"time\":\"");
    line.time.push_rfc3339(json);
    json.push_str("\",\"method\":");
    json.push_json_str(line.method);
    json.push_str(",\"path\":");
    json.push_json_str(line.path);
    json.push_str(",\"protocol\":");
    json.push_json_str(line.protocol);
    json.push_str(",\"status\":");
    json.push_str(line.status);
    json.push_str(",\"bytes\":");
    json.push_str(line.bytes.unwrap_or("null"));
    if let Some(client) = &line.client {
        json.push_str(",\"referer\":");
        push_or_null(client.referer, json);
        json.push_str(",\"user_agent\":");
        push_or_null(client.user_agent, json);
    }
    json.push_str("}");
}

fn push_or_null(text: Option<&str>, json: &mut NewValue<'_>) {
    match text {
        Some(text) => json.push_json_str(text),
        None => json.push_str("null"),
    }
}

#[cfg(test)]
mod tests;
