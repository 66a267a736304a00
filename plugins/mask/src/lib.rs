//! Redacts, truncates or hashes JSON values, and turns IP addresses into their networks.
//!
//! ```json
//! {"redact": ["/password"], "truncate": {"/user_agent": 20}, "network": ["/remote_addr"],
//!  "hash": ["/user/email"], "key": "a secret of 16 characters or more"}
//! ```
//!
//! | field | what becomes of the values at its pointers |
//! | --- | --- |
//! | `redact` | the text `redacted` |
//! | `truncate` | the first so many characters of a string |
//! | `hash` | 128 bits of HMAC-SHA-256 under `key`, in hexadecimal: alike for alike values, and not to be undone without the key |
//! | `network` | an IP address with its host part zeroed: `ipv4_prefix` (24) or `ipv6_prefix` (48) bits stay |
//!
//! - It fails closed: what `truncate` and `network` do not know (another type, a host's name) is redacted; a record that is not JSON, which
//!   could hide anything, is a failure with code 1. But `null` stays null, and a record without a value stays as it is.
//! - A name that occurs twice in an object is masked twice. What is not masked stays byte for byte.
//! - `hash` takes a string without its quotes and escapes, anything else as it is written.
//! - An IPv4 address mapped into IPv6 counts as the IPv4 address.
//! - The dead letters of this and other transforms hold records as they came in, unmasked.

mod config;
mod hmac;

use std::net::IpAddr;

use config::{Action, Mask};
use guest_sdk::{
    Failure, NewValue, Record, Verdict, guest,
    json::{self, Kind, Value},
};

guest! {
    filter_map: mask,
    config: Mask,
    schema: r#"{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "redact": {"type": "array", "items": {"type": "string"}, "description": "JSON pointers"},
            "truncate": {
                "type": "object",
                "additionalProperties": {"type": "integer", "minimum": 0},
                "description": "characters that stay, by JSON pointer"
            },
            "hash": {"type": "array", "items": {"type": "string"}, "description": "JSON pointers; needs a key"},
            "network": {"type": "array", "items": {"type": "string"}, "description": "JSON pointers"},
            "key": {"type": "string", "minLength": 16},
            "ipv4_prefix": {"type": "integer", "minimum": 0, "maximum": 32, "default": 24},
            "ipv6_prefix": {"type": "integer", "minimum": 0, "maximum": 128, "default": 48}
        }
    }"#,
}

/// The record is not JSON.
const NOT_JSON: u16 = 1;

const REDACTED: &[u8] = b"\"redacted\"";

fn mask(mask: &Mask, record: &Record<'_>, out: &mut NewValue<'_>) -> Result<Verdict, Failure> {
    let Some(json) = record.value() else { return Ok(Verdict::Keep) };
    // Pointers do not lie inside each other, so values are shown in the order in which they begin.
    let mut copied = 0;
    let shown = json::find_all(json, mask.pointers(), |pointer, value| {
        if value.kind() != Kind::Null {
            let range = value.range();
            out.push(&json[copied..range.start]);
            copied = range.end;
            push_masked(mask.action(pointer), value, out);
        }
    });
    shown.map_err(|error| Failure::new(NOT_JSON, error.to_string()))?;
    if copied == 0 {
        return Ok(Verdict::Keep);
    }
    out.push(&json[copied..]);
    Ok(Verdict::Replace)
}

fn push_masked(action: &Action, value: Value<'_>, out: &mut NewValue<'_>) {
    let string = value.string();
    match action {
        Action::Redact => out.push(REDACTED),
        Action::Truncate(count) => match string {
            Some(text) => out.push_json_str(text.char_indices().nth(*count).map_or(&text, |(end, _)| &text[..end])),
            None => out.push(REDACTED),
        },
        Action::Hash(key) => {
            let code = key.code(string.as_ref().map_or_else(|| value.raw(), |text| text.as_bytes()));
            out.push(b"\"");
            code[..16].iter().for_each(|byte| out.push(&hex(*byte)));
            out.push(b"\"");
        }
        Action::Network(prefix) => match string.and_then(|text| text.parse().ok()) {
            Some(address) => out.push_json_str(&prefix.network(address).to_string()),
            None => out.push(REDACTED),
        },
    }
}

fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)])
}

/// How many bits of an address name its network.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    ipv4: u32,
    ipv6: u32,
}

impl Prefix {
    fn network(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - self.ipv4).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - self.ipv6).unwrap_or(0)).into()),
        }
    }
}

#[cfg(test)]
mod tests;
