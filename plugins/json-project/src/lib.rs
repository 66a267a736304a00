//! Keeps, drops and renames fields of JSON objects.
//!
//! ```json
//! {"keep": ["time", "path", "status"], "rename": {"status": "code"}}
//! {"drop": ["referer", "user_agent"]}
//! ```
//!
//! - Fields are members of the outermost object, named as they are in the record, before renaming. Either `keep` names those that
//!   stay, or `drop` those that go; with neither, all stay.
//! - What stays keeps its order and its text, byte for byte; only space between fields is lost. Fields named but not there are
//!   no matter.
//! - A record without a value stays as it is. One that is not JSON, or not an object, is a failure with code 1; one in which
//!   a field would be renamed to the name of another, with code 2.

mod fields;

use guest_sdk::{
    Failure, NewValue, Record, Verdict, guest,
    json::{self, Value},
};

use fields::{Fields, Place};

guest! {
    filter_map: project,
    config: Fields,
    schema: r#"{
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "not": {"required": ["keep", "drop"]},
        "properties": {
            "keep": {"type": "array", "items": {"type": "string"}, "description": "fields that stay"},
            "drop": {"type": "array", "items": {"type": "string"}, "description": "fields that go"},
            "rename": {
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": {"type": "string"},
                "description": "new names of fields that stay, by their old names"
            }
        }
    }"#,
}

/// The record is not a JSON object.
const NOT_AN_OBJECT: u16 = 1;
/// Two fields would have one name.
const NAME_TAKEN: u16 = 2;

fn project(fields: &Fields, record: &Record<'_>, out: &mut NewValue<'_>) -> Result<Verdict, Failure> {
    let Some(value) = record.value() else { return Ok(Verdict::Keep) };
    let mut projection = Projection::default();
    out.push(b"{");
    let is_object = json::members(value, |name, member| projection.member(fields, name, member, out))
        .map_err(|error| Failure::new(NOT_AN_OBJECT, error.to_string()))?;
    out.push(b"}");
    if !is_object {
        return Err(Failure::new(NOT_AN_OBJECT, "not a JSON object"));
    }
    if let Some(rename) = fields.renames.get((projection.renamed & projection.taken).trailing_zeros() as usize) {
        let (from, to) = (&rename.from, &rename.to);
        return Err(Failure::new(NAME_TAKEN, format!("`{from}` would be renamed to `{to}`, which is there already")));
    }
    Ok(if projection.is_changed { Verdict::Replace } else { Verdict::Keep })
}

/// What has happened to a record's fields so far.
#[derive(Default)]
struct Projection {
    is_changed: bool,
    /// Of the renamings, those that were done.
    renamed: u64,
    /// Of the renamings, those whose new name a field has that stays under its own name.
    taken: u64,
}

impl Projection {
    fn member(&mut self, fields: &Fields, name: Value<'_>, member: Value<'_>, out: &mut NewValue<'_>) {
        let unescaped = name.string().unwrap_or_default();
        let place = fields.place(&unescaped);
        if place == Place::Dropped {
            self.is_changed = true;
            return;
        }
        if out.written().len() > 1 {
            out.push(b",");
        }
        match place {
            Place::Renamed(index) => {
                self.is_changed = true;
                self.renamed |= 1 << index;
                out.push_json_str(&fields.renames[index].to);
            }
            Place::Kept | Place::Dropped => {
                self.taken |= fields.renames_to(&unescaped);
                out.push(name.raw());
            }
        }
        out.push(b":");
        out.push(member.raw());
    }
}

#[cfg(test)]
mod tests;
