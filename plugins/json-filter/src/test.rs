//! What a value must be, and whether one is.

use std::cmp::Ordering;

use guest_sdk::json::{Kind, Number, Pointer, Value};
use serde::Deserialize;

use crate::Filter;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pointer: Pointer,
    op: Op,
    /// Absent and null are told apart: `eq` can ask for null.
    #[serde(default, deserialize_with = "present")]
    value: Option<serde_json::Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    #[serde(alias = "==")]
    Eq,
    #[serde(alias = "!=")]
    Ne,
    #[serde(alias = "<")]
    Lt,
    #[serde(alias = "<=")]
    Le,
    #[serde(alias = ">")]
    Gt,
    #[serde(alias = ">=")]
    Ge,
    Contains,
    Exists,
}

/// A test that can be made: op and value fit each other.
#[derive(Debug)]
pub(crate) enum Test {
    Exists(bool),
    Equal { to: Scalar, is_wanted: bool },
    Ordered { by: Scalar, is_wanted: fn(Ordering) -> bool },
    Contains(Scalar),
}

/// A value without parts.
#[derive(Debug)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
}

impl TryFrom<Config> for Filter {
    type Error = &'static str;

    fn try_from(Config { pointer, op, value }: Config) -> Result<Self, Self::Error> {
        Ok(Filter { pointer, test: Test::new(op, value)? })
    }
}

impl Test {
    fn new(op: Op, value: Option<serde_json::Value>) -> Result<Test, &'static str> {
        if op == Op::Exists {
            return match value {
                None => Ok(Test::Exists(true)),
                Some(value) => value.as_bool().map(Test::Exists).ok_or("`value` of `exists` is neither true nor false"),
            };
        }
        let scalar = Scalar::new(value.ok_or("`value` is missing: what to compare with")?)?;
        let ordered = |is_wanted: fn(Ordering) -> bool, by| match by {
            Scalar::Number(_) | Scalar::String(_) => Ok(Test::Ordered { by, is_wanted }),
            Scalar::Null | Scalar::Bool(_) => Err("`value` of an ordering op is neither a number nor a string"),
        };
        match op {
            Op::Eq => Ok(Test::Equal { to: scalar, is_wanted: true }),
            Op::Ne => Ok(Test::Equal { to: scalar, is_wanted: false }),
            Op::Lt => ordered(Ordering::is_lt, scalar),
            Op::Le => ordered(Ordering::is_le, scalar),
            Op::Gt => ordered(Ordering::is_gt, scalar),
            Op::Ge => ordered(Ordering::is_ge, scalar),
            Op::Contains | Op::Exists => Ok(Test::Contains(scalar)),
        }
    }

    /// Whether what was found at the pointer, if anything, passes.
    pub(crate) fn passes(&self, found: Option<Value<'_>>) -> bool {
        let Some(found) = found else { return matches!(self, Test::Exists(false)) };
        match self {
            Test::Exists(is_wanted) => *is_wanted,
            Test::Equal { to, is_wanted } => to.equals(found) == *is_wanted,
            Test::Ordered { by, is_wanted } => by.order_of(found).is_some_and(is_wanted),
            Test::Contains(part) => part.is_in(found),
        }
    }
}

impl Scalar {
    fn new(value: serde_json::Value) -> Result<Scalar, &'static str> {
        match value {
            serde_json::Value::Null => Ok(Scalar::Null),
            serde_json::Value::Bool(truth) => Ok(Scalar::Bool(truth)),
            serde_json::Value::Number(number) => {
                Number::parse(&number.to_string()).map(Scalar::Number).ok_or("`value` is no number we know")
            }
            serde_json::Value::String(text) => Ok(Scalar::String(text)),
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => Err("`value` is an array or an object"),
        }
    }

    fn equals(&self, found: Value<'_>) -> bool {
        match self {
            Scalar::Null => found.kind() == Kind::Null,
            Scalar::Bool(truth) => found.bool() == Some(*truth),
            Scalar::Number(_) | Scalar::String(_) => self.order_of(found) == Some(Ordering::Equal),
        }
    }

    /// Where what was found lies, seen from here; nothing where it is of another type.
    fn order_of(&self, found: Value<'_>) -> Option<Ordering> {
        match self {
            Scalar::Number(number) => found.number()?.partial_cmp(number),
            Scalar::String(text) => Some(found.string()?.as_bytes().cmp(text.as_bytes())),
            Scalar::Null | Scalar::Bool(_) => None,
        }
    }

    fn is_in(&self, found: Value<'_>) -> bool {
        if let (Scalar::String(part), Some(text)) = (self, found.string()) {
            return text.contains(part.as_str());
        }
        let mut is_in = false;
        found.elements(|element| is_in |= self.equals(element));
        is_in
    }
}
