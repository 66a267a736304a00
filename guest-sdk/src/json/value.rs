//! A value where it lies in the text.

use std::{borrow::Cow, cmp::Ordering, ops::Range};

use super::string;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are JSON's own words")]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A value of a JSON text, as it is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    pub(super) kind: Kind,
    pub(super) raw: &'a [u8],
    pub(super) start: usize,
}

impl<'a> Value<'a> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its text, quotes and all.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Where its text lies.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// The string it is, escapes undone.
    #[must_use]
    pub fn string(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::String => string::unescape(&self.raw[1..self.raw.len() - 1]),
            _ => None,
        }
    }

    /// The number it is.
    #[must_use]
    pub fn number(&self) -> Option<Number> {
        match self.kind {
            Kind::Number => Number::parse(str::from_utf8(self.raw).ok()?),
            _ => None,
        }
    }

    /// The truth it is.
    #[must_use]
    pub fn bool(&self) -> Option<bool> {
        (self.kind == Kind::Bool).then_some(self.raw == b"true")
    }

    /// Shows the elements of the array it is, in order, and says whether it is one.
    pub fn elements(&self, mut show: impl FnMut(Value<'a>)) -> bool {
        // The text was checked when this value was found.
        self.kind == Kind::Array && super::scan::elements(self.raw, &mut show).is_ok()
    }
}

/// A JSON number: exact where it is an integer of up to 64 bits, a double where not.
#[derive(Debug, Clone, Copy)]
pub struct Number(Repr);

#[derive(Debug, Clone, Copy)]
enum Repr {
    /// Holds every `i64` and every `u64`.
    Integer(i128),
    Float(f64),
}

impl Number {
    /// Reads a number as JSON writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Number> {
        let integer = text.parse::<i64>().map(i128::from).or_else(|_| text.parse::<u64>().map(i128::from));
        match integer {
            Ok(integer) => Some(Number(Repr::Integer(integer))),
            Err(_) => text.parse().ok().map(|float| Number(Repr::Float(float))),
        }
    }

    fn to_float(self) -> f64 {
        match self.0 {
            Repr::Integer(integer) => integer as f64,
            Repr::Float(float) => float,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    /// Two integers are compared exactly, all else as doubles.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.0, other.0) {
            (Repr::Integer(a), Repr::Integer(b)) => Some(a.cmp(&b)),
            _ => self.to_float().partial_cmp(&other.to_float()),
        }
    }
}

impl From<i64> for Number {
    fn from(integer: i64) -> Self {
        Number(Repr::Integer(integer.into()))
    }
}

impl From<f64> for Number {
    fn from(float: f64) -> Self {
        Number(Repr::Float(float))
    }
}
