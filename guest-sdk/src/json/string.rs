//! The inside of JSON strings: escapes undone and made.

use std::borrow::Cow;

/// Writes a JSON string: the text in quotes, escaped no more than it must be.
pub fn push_str(to: &mut Vec<u8>, text: &str) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    to.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest, |_| ()));
        to.extend_from_slice(plain);
        let Some((&special, behind)) = special.split_first() else { break };
        match special {
            byte @ (b'"' | b'\\') => to.extend_from_slice(&[b'\\', byte]),
            b'\n' => to.extend_from_slice(b"\\n"),
            b'\r' => to.extend_from_slice(b"\\r"),
            b'\t' => to.extend_from_slice(b"\\t"),
            byte => {
                let [high, low] = [byte >> 4, byte & 0xf].map(|digit| HEX[usize::from(digit)]);
                to.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = behind;
    }
    to.push(b'"');
}

/// The lowest bit of each byte of a word, and the highest.
const ONES: u64 = 0x0101_0101_0101_0101;
pub(super) const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many bytes come before the next quote, backslash or control character: eight at a time, each shown as `seen`.
#[inline(always)]
pub(super) fn plain_len(bytes: &[u8], mut seen: impl FnMut(u64)) -> usize {
    // The lowest high bit set by each of these is exact; what a borrow sets falsely lies above a true one.
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = zero_in(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_in(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (quote | backslash | control) & HIGHS;
        seen(word);
        if special != 0 {
            return at * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let is_plain = |&&byte: &&u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    let rest_len = rest.iter().take_while(is_plain).inspect(|&&byte| seen(u64::from(byte))).count();
    words.len() * 8 + rest_len
}

/// What a checked string says, without its quotes; nothing where it was not checked and is wrong.
pub(super) fn unescape(inside: &[u8]) -> Option<Cow<'_, str>> {
    if !inside.contains(&b'\\') {
        return str::from_utf8(inside).ok().map(Cow::Borrowed);
    }
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        text.push_str(str::from_utf8(&rest[..at]).ok()?);
        rest = &rest[at + 1..];
        let (unescaped, len) = escape(rest)?;
        text.push(unescaped);
        rest = &rest[len..];
    }
    text.push_str(str::from_utf8(rest).ok()?);
    Some(Cow::Owned(text))
}

/// The character of the escape that begins behind a backslash, and how many bytes it takes there.
pub(super) fn escape(rest: &[u8]) -> Option<(char, usize)> {
    let simple = match rest.first()? {
        byte @ (b'"' | b'\\' | b'/') => char::from(*byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(&rest[1..]).map(|(unescaped, len)| (unescaped, 1 + len)),
        _ => return None,
    };
    Some((simple, 1))
}

/// Four hexadecimal digits; those of a leading surrogate go with a second escape, the trailing one.
fn unicode_escape(rest: &[u8]) -> Option<(char, usize)> {
    let first = hex4(rest)?;
    if let Some(unescaped) = char::from_u32(first) {
        return Some((unescaped, 4));
    }
    let second = hex4(rest[4..].strip_prefix(b"\\u")?)?;
    if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 10))
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.first_chunk::<4>()?.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}
