//! What a plugin says of a record it could not do its work on.

use std::borrow::Cow;

use crate::answer::Verdict;

/// Why a record failed: a number for programs, a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u16,
    text: Cow<'static, str>,
}

impl Failure {
    /// A failure with a code of the plugin's own and a text that says what is wrong, and where.
    ///
    /// Codes from [`abi::HOST_CODES_START`] on are the host's; one of those becomes the highest below.
    pub fn new(code: u16, text: impl Into<Cow<'static, str>>) -> Failure {
        Failure { code: code.min(abi::HOST_CODES_START - 1), text: text.into() }
    }

    /// The number.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What a guest's function may return: a `T`, or a `Result` of it.
pub trait Outcome<T> {
    /// As a `Result`.
    ///
    /// # Errors
    /// Where the function said so.
    fn outcome(self) -> Result<T, Failure>;
}

impl Outcome<bool> for bool {
    #[inline(always)]
    fn outcome(self) -> Result<bool, Failure> {
        Ok(self)
    }
}

impl Outcome<Verdict> for Verdict {
    #[inline(always)]
    fn outcome(self) -> Result<Verdict, Failure> {
        Ok(self)
    }
}

impl Outcome<()> for () {
    #[inline(always)]
    fn outcome(self) -> Result<(), Failure> {
        Ok(self)
    }
}

impl<T, E: Into<Failure>> Outcome<T> for Result<T, E> {
    #[inline(always)]
    fn outcome(self) -> Result<T, Failure> {
        self.map_err(Into::into)
    }
}
