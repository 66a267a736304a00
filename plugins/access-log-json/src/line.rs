//! One line of an access log, taken apart.

use std::fmt;

use crate::time::Time;

/// A line, its parts where they lie in it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) remote_addr: &'a str,
    pub(crate) time: Time<'a>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) protocol: &'a str,
    /// Three digits.
    pub(crate) status: &'a str,
    /// Digits without leading zeros; nothing where the line has `-`.
    pub(crate) bytes: Option<&'a str>,
    /// What the combined format has more than the common one.
    pub(crate) client: Option<ClientFields<'a>>,
}

/// What the client said of itself; nothing where the line has `-`.
#[derive(Debug)]
pub(crate) struct ClientFields<'a> {
    pub(crate) referer: Option<&'a str>,
    pub(crate) user_agent: Option<&'a str>,
}

/// What was expected, of which part, and at which byte of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineError {
    expected: &'static str,
    at: usize,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no line of an access log: expected {} at byte {}", self.expected, self.at)
    }
}

impl<'a> Line<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Result<Line<'a>, LineError> {
        let text = str::from_utf8(value).map_err(|error| LineError { expected: "UTF-8", at: error.valid_up_to() })?;
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        let mut parts = Parts { text, at: 0 };

        let remote_addr = parts.word("a remote address")?;
        parts.word("the name of identd, or `-`")?;
        let time = parts.user_then_time()?;
        let (method, path, protocol) = parts.request()?;
        let status = parts.word("a status of three digits")?;
        if !(status.len() == 3 && is_number(status)) {
            return parts.expected_before(status, "a status of three digits");
        }
        let bytes = parts.last_word()?;
        if bytes != "-" && !is_number(bytes) {
            return parts.expected_before(bytes, "a number of bytes, or `-`");
        }
        let client = if parts.is_end() {
            None
        } else {
            parts.space()?;
            let referer = absent(parts.quoted("the referer in quotes")?);
            parts.space()?;
            Some(ClientFields { referer, user_agent: absent(parts.quoted("the user agent in quotes")?) })
        };
        if !parts.is_end() {
            return parts.expected("the end of the line");
        }
        Ok(Line { remote_addr, time, method, path, protocol, status, bytes: absent(bytes), client })
    }
}

fn absent(text: &str) -> Option<&str> {
    (text != "-").then_some(text)
}

/// Whether JSON would take it as a whole number.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0')) && !text.is_empty()
}

/// The line, and how far it is read.
struct Parts<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parts<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn is_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, LineError> {
        Err(LineError { expected, at: self.at })
    }

    /// As [`Parts::expected`], for a part that was just read.
    fn expected_before<T>(&self, part: &str, expected: &'static str) -> Result<T, LineError> {
        let at = part.as_ptr().addr() - self.text.as_ptr().addr();
        Err(LineError { expected, at })
    }

    fn eat(&mut self, text: &'static str, expected: &'static str) -> Result<(), LineError> {
        if !self.rest().starts_with(text) {
            return self.expected(expected);
        }
        self.at += text.len();
        Ok(())
    }

    fn space(&mut self) -> Result<(), LineError> {
        self.eat(" ", "a space")
    }

    /// What comes before the next space, which must be there.
    fn word(&mut self, expected: &'static str) -> Result<&'a str, LineError> {
        match self.rest().split_once(' ') {
            Some((word, _)) if !word.is_empty() => {
                self.at += word.len() + 1;
                Ok(word)
            }
            _ => self.expected(expected),
        }
    }

    /// What comes before the next space or the end.
    fn last_word(&mut self) -> Result<&'a str, LineError> {
        let word = self.rest().split(' ').next().unwrap_or_default();
        if word.is_empty() {
            return self.expected("a number of bytes, or `-`");
        }
        self.at += word.len();
        Ok(word)
    }

    /// The user's name, which is left out and may have spaces in it, and the time in brackets.
    fn user_then_time(&mut self) -> Result<Time<'a>, LineError> {
        match self.rest().find(" [") {
            Some(len) if len > 0 => self.at += len + 2,
            _ => return self.expected("the user's name or `-`, and a time in brackets"),
        }
        let Some((time, _)) = self.rest().split_once(']') else { return self.expected("`]` behind the time") };
        let Some(parsed) = Time::parse(time) else {
            return self.expected("a time such as 17/May/2015:10:05:03 +0000");
        };
        self.at += time.len();
        self.eat("] ", "`] `")?;
        Ok(parsed)
    }

    /// Method, path and protocol, in quotes, and the space behind. A path may have spaces in it.
    fn request(&mut self) -> Result<(&'a str, &'a str, &'a str), LineError> {
        let start = self.at;
        let request = self.quoted("the request in quotes")?;
        let parts = request.split_once(' ').and_then(|(method, rest)| {
            let (path, protocol) = rest.rsplit_once(' ')?;
            let is_request = is_method(method) && !path.is_empty() && protocol.starts_with("HTTP/");
            is_request.then_some((method, path, protocol))
        });
        match parts {
            Some(parts) => {
                self.space()?;
                Ok(parts)
            }
            None => Err(LineError { expected: "a request such as \"GET / HTTP/1.1\"", at: start }),
        }
    }

    /// What is between quotes, as it is written; a backslash keeps the character behind it from ending it.
    fn quoted(&mut self, expected: &'static str) -> Result<&'a str, LineError> {
        self.eat("\"", expected)?;
        let inside = self.rest().as_bytes();
        let mut len = 0;
        loop {
            match memchr::memchr2(b'"', b'\\', inside.get(len..).unwrap_or_default()) {
                Some(plain) if inside[len + plain] == b'"' => {
                    len += plain;
                    break;
                }
                Some(plain) => len += plain + 2,
                None => return Err(LineError { expected: "a quote that ends what began here", at: self.at - 1 }),
            }
        }
        let inside = &self.rest()[..len];
        self.at += len + 1;
        Ok(inside)
    }
}

/// A method is a token of HTTP's (RFC 9110); those that are used are of capitals, `-` and `_`.
fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_')
}
