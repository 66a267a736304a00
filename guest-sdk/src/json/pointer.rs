//! JSON pointers (RFC 6901).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};

/// The place of a value in a JSON document, such as `/user/name` or `/items/0`. `""` is the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<Token>,
}

/// One step of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The member's name, in an object.
    pub(super) name: String,
    /// The element's index, in an array.
    pub(super) index: Option<usize>,
}

impl Pointer {
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Whether `other` is this place or one inside it.
    #[must_use]
    pub fn contains(&self, other: &Pointer) -> bool {
        other.tokens.starts_with(&self.tokens)
    }
}

impl FromStr for Pointer {
    type Err = PointerInvalid;

    fn from_str(text: &str) -> Result<Self, PointerInvalid> {
        if text.is_empty() {
            return Ok(Pointer { tokens: Vec::new() });
        }
        let invalid = || PointerInvalid(text.to_owned());
        let tokens = text.strip_prefix('/').ok_or_else(invalid)?.split('/');
        let tokens = tokens.map(|escaped| Token::parse(escaped).ok_or_else(invalid));
        Ok(Pointer { tokens: tokens.collect::<Result<_, _>>()? })
    }
}

impl Token {
    fn parse(escaped: &str) -> Option<Token> {
        let mut pieces = escaped.split('~');
        let mut name = pieces.next()?.to_owned();
        for piece in pieces {
            name.push(match piece.as_bytes().first()? {
                b'0' => '~',
                b'1' => '/',
                _ => return None,
            });
            name.push_str(&piece[1..]);
        }
        let is_index = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
        Some(Token { index: if is_index { name.parse().ok() } else { None }, name })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens.iter().try_for_each(|token| write!(f, "/{}", token.name.replace('~', "~0").replace('/', "~1")))
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerInvalid(String);

impl fmt::Display for PointerInvalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a JSON pointer: it begins with `/`, and `~` is written `~0`, `/` in a name `~1`", self.0)
    }
}

impl std::error::Error for PointerInvalid {}
