//! Names that people give: a value of these types is a valid name.
//!
//! Owns the rule for names (Kafka's for topics: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`). Never knows whether
//! the named thing exists.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::limits::NAME_BYTES_MAX;

/// A name that breaks the rule; the text shows what it was meant for and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {kind} needs a name")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },
    /// More bytes than [`NAME_BYTES_MAX`].
    #[error("{kind} name of {bytes} bytes is longer than `name_bytes_max` ({NAME_BYTES_MAX})")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A character outside of letters, digits, `.`, `_` and `-`, or one of the two reserved names.
    #[error("{kind} name `{name}` has something other than letters, digits, `.`, `_` and `-`, or is `.` or `..`")]
    Character {
        /// What was to be named.
        kind: &'static str,
        /// The name as given.
        name: String,
    },
}

fn check(kind: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { kind, bytes: name.len() });
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) || name == "." || name == ".." {
        return Err(NameError::Character { kind, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name.
            ///
            /// # Errors
            /// When it is empty, too long, or has a character outside the rule.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check($kind, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl<C> Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::new(d.str()?).map_err(minicbor::decode::Error::custom)
            }
        }
    };
}

name!(
    /// Name of a topic.
    TopicName,
    "topic"
);
name!(
    /// Name of an uploaded plugin.
    PluginName,
    "plugin"
);
name!(
    /// Name of a transform; deploying the same name on a topic replaces it.
    TransformName,
    "transform"
);

impl TopicName {
    /// Where records go that a transform of this topic fails: `<topic>.dlq`.
    ///
    /// # Errors
    /// When the longer name is over the limit for names.
    pub fn dead_letter(&self) -> Result<TopicName, NameError> {
        TopicName::new(&format!("{}.dlq", self.0))
    }
}

/// One ordered part of a topic, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct TopicPartition {
    /// The topic.
    #[n(0)]
    pub topic: TopicName,
    /// Number of the partition in its topic, from 0.
    #[n(1)]
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_for_names_holds() {
        for good in ["a", "clicks", "a.b_c-9", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a b", "a/b", "ü", "a\0", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(TopicName::new(bad).is_err(), "{bad:?} passed");
        }
    }
}
