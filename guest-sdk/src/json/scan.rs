//! The scanner: one pass over the text, following the pointers that can still match.
//!
//! Of up to 64 pointers, a bit each says which have matched on the way down so far; where none has, values are only checked.

use std::{
    fmt,
    num::NonZeroUsize,
    ops::{ControlFlow, Range},
};

use super::{
    Kind, Pointer, Value,
    pointer::Token,
    string::{self, HIGHS},
};

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

/// Where a step ends; nothing where it stopped. As one number it is returned in a register, in WebAssembly too.
type End = Option<NonZeroUsize>;

/// Why a scan stopped before the end.
#[derive(Clone, Copy)]
enum Stop {
    /// It has seen enough.
    Enough,
    Error(JsonError),
}

/// Shows every value at one of the pointers, until told to stop.
pub(super) fn pointers<'a>(
    json: &'a [u8],
    pointers: &[Pointer],
    show: &mut impl FnMut(usize, Value<'a>) -> ControlFlow<()>,
) -> Result<(), JsonError> {
    if pointers.is_empty() {
        return Scanner::new(json).finish(|scanner| scanner.skip(0, 0));
    }
    for (group, pointers) in pointers.chunks(64).enumerate() {
        let mut matched = |bit: usize, value| show(group * 64 + bit, value);
        let mut follow = Follow { pointers, matched: &mut matched };
        let all = u64::MAX >> (64 - pointers.len());
        Scanner::new(json).finish(|scanner| scanner.follow(&mut follow, 0, 0, all).map(NonZeroUsize::get))?;
    }
    Ok(())
}

/// Shows the members of an object; `false` where the text is another value.
pub(super) fn members<'a>(json: &'a [u8], mut show: impl FnMut(Value<'a>, Value<'a>)) -> Result<bool, JsonError> {
    let mut is_object = false;
    Scanner::new(json).finish(|scanner| {
        let at = scanner.space(0);
        is_object = scanner.peek(at) == Some(b'{');
        if !is_object {
            return scanner.skip(at, 0);
        }
        scanner.object(at, 0, |scanner, name, at| {
            let (start, end) = (scanner.space(at), scanner.skip(at, 1)?);
            show(scanner.value(name), scanner.value(start..end));
            Some(end)
        })
    })?;
    Ok(is_object)
}

/// Shows the elements of an array.
pub(super) fn elements<'a>(json: &'a [u8], show: &mut impl FnMut(Value<'a>)) -> Result<(), JsonError> {
    Scanner::new(json).finish(|scanner| {
        scanner.array(0, 0, |scanner, _, at| {
            let (start, end) = (scanner.space(at), scanner.skip(at, 1)?);
            show(scanner.value(start..end));
            Some(end)
        })
    })
}

/// The pointers that are followed, and who is told.
struct Follow<'p, F> {
    pointers: &'p [Pointer],
    matched: &'p mut F,
}

impl<F> Follow<'_, F> {
    /// Of the pointers that have matched `depth` steps, those whose next step is this one.
    #[inline(always)]
    fn step(&self, depth: usize, active: u64, is_next: impl Fn(&Token) -> bool) -> u64 {
        bits(active)
            .filter(|&bit| self.pointers[bit].tokens().get(depth).is_some_and(&is_next))
            .fold(0, |next, bit| next | 1 << bit)
    }
}

#[inline(always)]
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

/// The text, and why the scan of it stopped. Each step takes where it begins and returns where it ends, or nothing where it
/// stopped: a place that is passed on stays in a register, which makes the scan twice as fast.
struct Scanner<'a> {
    json: &'a [u8],
    /// Set where a step returns nothing.
    stop: Stop,
    /// High bits of the bytes in strings; elsewhere none is taken.
    non_ascii: u64,
}

impl<'a> Scanner<'a> {
    fn new(json: &'a [u8]) -> Scanner<'a> {
        Scanner { json, stop: Stop::Enough, non_ascii: 0 }
    }

    /// Runs a scan and checks what it could not: that the text is UTF-8, and that nothing is left behind it.
    #[inline(always)]
    fn finish(mut self, scan: impl FnOnce(&mut Self) -> Option<usize>) -> Result<(), JsonError> {
        let end = scan(&mut self);
        if self.non_ascii & HIGHS != 0 {
            self.check_utf8()?;
        }
        let Some(end) = end else {
            return match self.stop {
                Stop::Enough => Ok(()),
                Stop::Error(error) => Err(error),
            };
        };
        match self.space(end) {
            at if at == self.json.len() => Ok(()),
            at => Err(JsonError { at, problem: Problem::BytesLeft }),
        }
    }

    #[cold]
    fn check_utf8(&self) -> Result<(), JsonError> {
        match str::from_utf8(self.json) {
            Ok(_) => Ok(()),
            Err(error) => Err(JsonError { at: error.valid_up_to(), problem: Problem::NotUtf8 }),
        }
    }

    /// A value inside which the active pointers are followed.
    fn follow<F>(&mut self, follow: &mut Follow<'_, F>, at: usize, depth: usize, active: u64) -> End
    where
        F: FnMut(usize, Value<'a>) -> ControlFlow<()>,
    {
        let start = self.space(at);
        let end = match self.peek(start) {
            Some(b'{') => self.object(start, depth, |scanner, name, at| {
                let inside = &scanner.json[name.start + 1..name.end - 1];
                match follow.step(depth, active, |token| name_is(inside, &token.name)) {
                    0 => scanner.skip(at, depth + 1),
                    next => scanner.follow(follow, at, depth + 1, next).map(NonZeroUsize::get),
                }
            })?,
            Some(b'[') => self.array(start, depth, |scanner, index, at| {
                match follow.step(depth, active, |token| token.index == Some(index)) {
                    0 => scanner.skip(at, depth + 1),
                    next => scanner.follow(follow, at, depth + 1, next).map(NonZeroUsize::get),
                }
            })?,
            _ => self.scalar(start)?,
        };
        for bit in bits(active).filter(|&bit| follow.pointers[bit].tokens().len() == depth) {
            if (follow.matched)(bit, self.value(start..end)).is_break() {
                self.stop = Stop::Enough;
                return None;
            }
        }
        NonZeroUsize::new(end)
    }

    /// A value that was scanned.
    #[inline(always)]
    fn value(&self, range: Range<usize>) -> Value<'a> {
        let kind = match self.json[range.start] {
            b'"' => Kind::String,
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b't' | b'f' => Kind::Bool,
            b'n' => Kind::Null,
            _ => Kind::Number,
        };
        Value { kind, start: range.start, raw: &self.json[range] }
    }

    /// An object; `member` reads each value, given where its name is, quotes included.
    #[inline(always)]
    fn object(
        &mut self,
        at: usize,
        depth: usize,
        mut member: impl FnMut(&mut Self, Range<usize>, usize) -> Option<usize>,
    ) -> Option<usize> {
        let inside = self.enter(at, depth)?;
        let mut at = self.space(inside);
        if self.peek(at) == Some(b'}') {
            return Some(at + 1);
        }
        loop {
            let start = self.space(at);
            let (name_end, value) = self.name(start)?;
            at = member(self, start..name_end, value)?;
            at = self.space(at);
            match self.peek(at) {
                Some(b',') => at += 1,
                Some(b'}') => return Some(at + 1),
                _ => return self.expected(at, "`,` or `}`"),
            }
        }
    }

    /// An array; `element` reads each value, given its index.
    #[inline(always)]
    fn array(
        &mut self,
        at: usize,
        depth: usize,
        mut element: impl FnMut(&mut Self, usize, usize) -> Option<usize>,
    ) -> Option<usize> {
        let inside = self.enter(at, depth)?;
        let mut at = self.space(inside);
        if self.peek(at) == Some(b']') {
            return Some(at + 1);
        }
        let mut index = 0;
        loop {
            at = element(self, index, at)?;
            at = self.space(at);
            index += 1;
            match self.peek(at) {
                Some(b',') => at += 1,
                Some(b']') => return Some(at + 1),
                _ => return self.expected(at, "`,` or `]`"),
            }
        }
    }

    /// A value that nobody asked for.
    #[inline(always)]
    fn skip(&mut self, at: usize, depth: usize) -> Option<usize> {
        let at = self.space(at);
        match self.peek(at) {
            Some(b'{' | b'[') => self.skip_parts(at, depth).map(NonZeroUsize::get),
            _ => self.scalar(at),
        }
    }

    /// An array or object that nobody asked for. Not recursive: what is open, innermost lowest, is in a bit per level.
    fn skip_parts(&mut self, mut at: usize, depth: usize) -> End {
        let (mut levels, mut is_object) = (0, 0_u128);
        loop {
            // A value, or what opens one.
            at = self.space(at);
            match self.peek(at) {
                Some(open @ (b'{' | b'[')) => {
                    at = self.enter(at, depth + levels)?;
                    at = self.space(at);
                    levels += 1;
                    is_object = is_object << 1 | u128::from(open == b'{');
                    if self.peek(at) != Some(close_of(is_object)) {
                        if open == b'{' {
                            at = self.name(at)?.1;
                        }
                        continue;
                    }
                    at += 1;
                    levels -= 1;
                    is_object >>= 1;
                }
                _ => at = self.scalar(at)?,
            }
            // What comes behind it: the end of what is open, or one more.
            loop {
                if levels == 0 {
                    return NonZeroUsize::new(at);
                }
                at = self.space(at);
                match self.peek(at) {
                    Some(b',') => break,
                    Some(close) if close == close_of(is_object) => {
                        at += 1;
                        levels -= 1;
                        is_object >>= 1;
                    }
                    _ if is_object & 1 == 1 => return self.expected(at, "`,` or `}`"),
                    _ => return self.expected(at, "`,` or `]`"),
                }
            }
            at += 1;
            if is_object & 1 == 1 {
                at = self.name(self.space(at))?.1;
            }
        }
    }

    #[inline(always)]
    fn enter(&mut self, at: usize, depth: usize) -> Option<usize> {
        if depth >= DEPTH_MAX { self.fail(at, Problem::TooDeep) } else { Some(at + 1) }
    }

    /// A member's name and the colon behind: where the name ends, and where the value begins.
    #[inline(always)]
    fn name(&mut self, at: usize) -> Option<(usize, usize)> {
        if self.peek(at) != Some(b'"') {
            return self.expected(at, "a name in quotes");
        }
        let end = self.string(at)?;
        let at = self.space(end);
        if self.peek(at) != Some(b':') {
            return self.expected(at, "`:`");
        }
        Some((end, at + 1))
    }

    /// A value without parts.
    #[inline(always)]
    fn scalar(&mut self, at: usize) -> Option<usize> {
        // In the order in which they are met most, and not by a table, which is slower in WebAssembly.
        let first = self.peek(at);
        if first == Some(b'"') {
            self.string(at)
        } else if matches!(first, Some(b'-' | b'0'..=b'9')) {
            self.number(at)
        } else {
            self.literal(at)
        }
    }

    /// A string, from its quote to behind the other.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<usize> {
        let inside = at + 1;
        let end = inside + self.plain_len(inside);
        if self.peek(end) == Some(b'"') { Some(end + 1) } else { self.rest_of_string(end).map(NonZeroUsize::get) }
    }

    /// A string with escapes, from the first one or what is wrong.
    #[cold]
    fn rest_of_string(&mut self, mut at: usize) -> End {
        loop {
            match self.peek(at) {
                Some(b'"') => return NonZeroUsize::new(at + 1),
                Some(b'\\') => match string::escape(&self.json[at + 1..]) {
                    Some((_, len)) => at += 1 + len,
                    None => return self.expected(at, "an escape"),
                },
                _ => return self.expected(at, "an escaped control character"),
            }
            at += self.plain_len(at);
        }
    }

    /// How many bytes of a string come before what is not plain text.
    #[inline(always)]
    fn plain_len(&mut self, at: usize) -> usize {
        string::plain_len(&self.json[at..], |word| self.non_ascii |= word)
    }

    #[inline(always)]
    fn number(&mut self, at: usize) -> Option<usize> {
        let mut at = at + usize::from(self.peek(at) == Some(b'-'));
        at = if self.peek(at) == Some(b'0') { at + 1 } else { self.digits(at)? };
        if self.peek(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if matches!(self.peek(at), Some(b'e' | b'E')) {
            let signed = matches!(self.peek(at + 1), Some(b'+' | b'-'));
            at = self.digits(at + 1 + usize::from(signed))?;
        }
        Some(at)
    }

    #[inline(always)]
    fn digits(&mut self, start: usize) -> Option<usize> {
        let mut at = start;
        while matches!(self.peek(at), Some(b'0'..=b'9')) {
            at += 1;
        }
        if at == start { self.expected(at, "a digit") } else { Some(at) }
    }

    fn literal(&mut self, at: usize) -> Option<usize> {
        let words = ["true", "false", "null"];
        match words.into_iter().find(|word| self.json[at..].starts_with(word.as_bytes())) {
            Some(word) => Some(at + word.len()),
            None => self.expected(at, "a value"),
        }
    }

    #[inline(always)]
    fn space(&self, mut at: usize) -> usize {
        while matches!(self.peek(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    #[inline(always)]
    fn peek(&self, at: usize) -> Option<u8> {
        self.json.get(at).copied()
    }

    #[cold]
    fn expected<T>(&mut self, at: usize, what: &'static str) -> Option<T> {
        self.fail(at, if at >= self.json.len() { Problem::Cut } else { Problem::Expected(what) })
    }

    #[cold]
    fn fail<T>(&mut self, at: usize, problem: Problem) -> Option<T> {
        self.stop = Stop::Error(JsonError { at, problem });
        None
    }
}

/// What closes the innermost of what is open.
#[inline(always)]
fn close_of(is_object: u128) -> u8 {
    if is_object & 1 == 1 { b'}' } else { b']' }
}

/// Whether the inside of a name's quotes says what the token does.
#[inline(always)]
fn name_is(inside: &[u8], token: &str) -> bool {
    if inside == token.as_bytes() {
        // Equal as written; an escape in it would stand for something else.
        return !inside.contains(&b'\\');
    }
    // Escapes make a name longer.
    inside.len() > token.len() && name_is_escaped(inside, token)
}

fn name_is_escaped(inside: &[u8], token: &str) -> bool {
    inside.contains(&b'\\') && string::unescape(inside).is_some_and(|name| name == token)
}
