//! The scanner: one pass over the text, following the pointers that can still match.
//!
//! Of up to 64 pointers, a bit each says which have matched on the way down so far; where none has, values are only checked.

use std::{fmt, ops::ControlFlow};

use super::{Kind, Pointer, Value, string};

/// How deep arrays and objects may nest: what `serde_json` takes.
const DEPTH_MAX: usize = 127;

/// Where and why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// The byte at which it shows.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a text that should be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It ends inside a value.
    Cut,
    /// Something else should be here.
    Expected(&'static str),
    /// There is something behind the value.
    BytesLeft,
    /// Arrays and objects nest too deep.
    TooDeep,
    /// It is not UTF-8.
    NotUtf8,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.problem {
            Problem::Cut => write!(f, "not JSON: it ends inside a value, at byte {at}"),
            Problem::Expected(what) => write!(f, "not JSON: expected {what} at byte {at}"),
            Problem::BytesLeft => write!(f, "not JSON: there is more behind its end, at byte {at}"),
            Problem::TooDeep => write!(f, "not JSON we take: nested deeper than {DEPTH_MAX} at byte {at}"),
            Problem::NotUtf8 => write!(f, "not JSON: no UTF-8 at byte {at}"),
        }
    }
}

impl std::error::Error for JsonError {}

/// Why a scan stops before the end.
enum Halt {
    /// It has seen enough.
    Enough,
    Error(JsonError),
}

type Step<T = ()> = Result<T, Halt>;

/// Shows every value at one of the pointers, until told to stop.
pub(super) fn pointers<'a>(
    json: &'a [u8],
    pointers: &[Pointer],
    show: &mut impl FnMut(usize, Value<'a>) -> ControlFlow<()>,
) -> Result<(), JsonError> {
    let mut groups = pointers.chunks(64).enumerate();
    // No pointers: the text is checked all the same.
    let (first, none) = (groups.next(), &[][..]);
    for (group, pointers) in first.or(Some((0, none))).into_iter().chain(groups) {
        let all = u64::MAX.checked_shr(64 - pointers.len() as u32).unwrap_or(0);
        let mut matched = |bit: usize, value| show(group * 64 + bit, value);
        let mut scanner = Scanner::new(json)?;
        scanner.end_of(|scanner| scanner.value(Follow { pointers, matched: &mut matched }, 0, all).map(|_| ()))?;
    }
    Ok(())
}

/// Shows the members of an object; `false` where the text is another value.
pub(super) fn members<'a>(json: &'a [u8], mut show: impl FnMut(Value<'a>, Value<'a>)) -> Result<bool, JsonError> {
    let mut scanner = Scanner::new(json)?;
    scanner.space();
    let is_object = scanner.peek() == Some(b'{');
    scanner.end_of(|scanner| {
        if !is_object {
            return scanner.unfollowed(0).map(|_| ());
        }
        scanner.object(0, |scanner, name| {
            let value = scanner.unfollowed(1)?;
            show(name, value);
            Ok(())
        })
    })?;
    Ok(is_object)
}

/// Shows the elements of an array.
pub(super) fn elements<'a>(json: &'a [u8], show: &mut impl FnMut(Value<'a>)) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(json)?;
    scanner.end_of(|scanner| {
        scanner.array(0, |scanner, _| {
            let value = scanner.unfollowed(1)?;
            show(value);
            Ok(())
        })
    })
}

/// The pointers that are followed, and who is told.
struct Follow<'p, F> {
    pointers: &'p [Pointer],
    matched: &'p mut F,
}

impl<F> Follow<'_, F> {
    fn again(&mut self) -> Follow<'_, F> {
        Follow { pointers: self.pointers, matched: self.matched }
    }

    /// Of the pointers that have matched `depth` steps, those whose next step is this one.
    fn step(&self, depth: usize, active: u64, is_next: impl Fn(&super::pointer::Token) -> bool) -> u64 {
        bits(active)
            .filter(|&bit| self.pointers[bit].tokens().get(depth).is_some_and(&is_next))
            .fold(0, |next, bit| next | 1 << bit)
    }
}

fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(json: &'a [u8]) -> Result<Scanner<'a>, JsonError> {
        match str::from_utf8(json) {
            Ok(_) => Ok(Scanner { json, at: 0 }),
            Err(error) => Err(JsonError { at: error.valid_up_to(), problem: Problem::NotUtf8 }),
        }
    }

    /// Runs a scan and checks that nothing is left behind it.
    fn end_of(&mut self, scan: impl FnOnce(&mut Self) -> Step) -> Result<(), JsonError> {
        match scan(self) {
            Err(Halt::Enough) => Ok(()),
            Err(Halt::Error(error)) => Err(error),
            Ok(()) => {
                self.space();
                if self.at == self.json.len() {
                    Ok(())
                } else {
                    Err(JsonError { at: self.at, problem: Problem::BytesLeft })
                }
            }
        }
    }

    /// A value whose inside is only checked.
    fn unfollowed(&mut self, depth: usize) -> Step<Value<'a>> {
        self.value(Follow { pointers: &[], matched: &mut |_, _| ControlFlow::Continue(()) }, depth, 0)
    }

    fn value<F>(&mut self, mut follow: Follow<'_, F>, depth: usize, active: u64) -> Step<Value<'a>>
    where
        F: FnMut(usize, Value<'a>) -> ControlFlow<()>,
    {
        self.space();
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => {
                self.string()?;
                Kind::String
            }
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                Kind::Number
            }
            Some(b'{') => {
                self.object(depth, |scanner, name| {
                    let next = match active {
                        0 => 0,
                        _ => follow.step(depth, active, |token| name_is(name, &token.name)),
                    };
                    scanner.value(follow.again(), depth + 1, next).map(|_| ())
                })?;
                Kind::Object
            }
            Some(b'[') => {
                self.array(depth, |scanner, index| {
                    let next = match active {
                        0 => 0,
                        _ => follow.step(depth, active, |token| token.index == Some(index)),
                    };
                    scanner.value(follow.again(), depth + 1, next).map(|_| ())
                })?;
                Kind::Array
            }
            Some(b't') => self.literal("true", Kind::Bool)?,
            Some(b'f') => self.literal("false", Kind::Bool)?,
            Some(b'n') => self.literal("null", Kind::Null)?,
            _ => return self.expected("a value"),
        };
        let value = Value { kind, raw: &self.json[start..self.at], start };
        for bit in bits(active).filter(|&bit| follow.pointers[bit].tokens().len() == depth) {
            if (follow.matched)(bit, value).is_break() {
                return Err(Halt::Enough);
            }
        }
        Ok(value)
    }

    /// An object; `member` reads each value, given its name.
    #[inline(always)]
    fn object(&mut self, depth: usize, mut member: impl FnMut(&mut Self, Value<'a>) -> Step) -> Step {
        self.enter(depth)?;
        self.space();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return self.expected("a name in quotes");
            }
            self.string()?;
            let name = Value { kind: Kind::String, raw: &self.json[start..self.at], start };
            self.space();
            if !self.eat(b':') {
                return self.expected("`:`");
            }
            member(self, name)?;
            self.space();
            if !self.eat(b',') {
                return if self.eat(b'}') { Ok(()) } else { self.expected("`,` or `}`") };
            }
        }
    }

    /// An array; `element` reads each value, given its index.
    #[inline(always)]
    fn array(&mut self, depth: usize, mut element: impl FnMut(&mut Self, usize) -> Step) -> Step {
        self.enter(depth)?;
        self.space();
        if self.eat(b']') {
            return Ok(());
        }
        for index in 0.. {
            element(self, index)?;
            self.space();
            if !self.eat(b',') {
                return if self.eat(b']') { Ok(()) } else { self.expected("`,` or `]`") };
            }
        }
        Ok(())
    }

    fn enter(&mut self, depth: usize) -> Step {
        if depth >= DEPTH_MAX {
            return self.fail(Problem::TooDeep);
        }
        self.at += 1;
        Ok(())
    }

    /// A string, from its quote to behind the other.
    #[inline]
    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            self.at += plain_len(&self.json[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => match string::escape(&self.json[self.at + 1..]) {
                    Some((_, len)) => self.at += 1 + len,
                    None => return self.expected("an escape"),
                },
                _ => return self.expected("an escaped control character"),
            }
        }
    }

    fn number(&mut self) -> Step {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Step {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.expected("a digit") } else { Ok(()) }
    }

    fn literal(&mut self, word: &'static str, kind: Kind) -> Step<Kind> {
        if !self.json[self.at..].starts_with(word.as_bytes()) {
            return self.expected(word);
        }
        self.at += word.len();
        Ok(kind)
    }

    #[inline(always)]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    #[inline(always)]
    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[cold]
    fn expected<T>(&self, what: &'static str) -> Step<T> {
        self.fail(if self.at >= self.json.len() { Problem::Cut } else { Problem::Expected(what) })
    }

    #[cold]
    fn fail<T>(&self, problem: Problem) -> Step<T> {
        Err(Halt::Error(JsonError { at: self.at, problem }))
    }
}

fn name_is(name: Value<'_>, token: &str) -> bool {
    let inside = &name.raw[1..name.raw.len() - 1];
    if inside == token.as_bytes() {
        // Equal as written; an escape in it would stand for something else.
        return !inside.contains(&b'\\');
    }
    inside.contains(&b'\\') && string::unescape(inside).is_some_and(|name| name == token)
}

/// How many bytes come before the next quote, backslash or control character: eight at a time.
#[inline(always)]
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest high bit set by each of these is exact; what a borrow sets falsely lies above a true one.
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = zero_in(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_in(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (quote | backslash | control) & HIGHS;
        if special != 0 {
            return at * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let in_rest = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    words.len() * 8 + in_rest.unwrap_or(rest.len())
}
