//! Zigzag varints as in Kafka records: 7 bits a byte, low bits first, small magnitudes short.
//!
//! Readers take what they read off the front of the slice and leave it alone on failure.

/// Longest encoding of an `i32`.
pub const I32_BYTES_MAX: usize = 5;
/// Longest encoding of an `i64`.
pub const I64_BYTES_MAX: usize = 10;

const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The number that a zigzag one stands for.
#[must_use]
pub const fn unzigzag32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

const fn unzigzag64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

/// Reads an `i32`; `None` when the bytes end within it or it does not fit.
#[inline(always)]
pub fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    // Nearly all numbers of a record have one or two bytes.
    match **bytes {
        [a, ref rest @ ..] if a < 0x80 => {
            *bytes = rest;
            Some(unzigzag32(a.into()))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *bytes = rest;
            Some(unzigzag32(u32::from(a & 0x7f) | u32::from(b) << 7))
        }
        _ => {
            let (raw, rest) = split_raw(bytes, I32_BYTES_MAX, u32::MAX.into())?;
            *bytes = rest;
            Some(unzigzag32(raw as u32))
        }
    }
}

/// Reads an `i64`; `None` when the bytes end within it or it does not fit.
#[inline(always)]
pub fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    match **bytes {
        [a, ref rest @ ..] if a < 0x80 => {
            *bytes = rest;
            Some(unzigzag64(a.into()))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *bytes = rest;
            Some(unzigzag64(u64::from(a & 0x7f) | u64::from(b) << 7))
        }
        _ => {
            let (raw, rest) = split_raw(bytes, I64_BYTES_MAX, u64::MAX)?;
            *bytes = rest;
            Some(unzigzag64(raw))
        }
    }
}

/// Reads a varint of at most three bytes at `at`, still zigzag, and moves `at` behind it; `None` where it is longer. For
/// walks whose numbers are nearly all short: nothing is compared with the end of the window, so whoever reads several
/// in a row makes sure that they lie in it.
#[inline(always)]
pub fn read_short(window: &[u8; 16], at: &mut usize) -> Option<u32> {
    // The mask keeps the index in the window without a check.
    let byte = |place: usize| u32::from(window[place & 15]);
    let start = *at;
    let mut raw = byte(start);
    *at = start + 1;
    if raw < 0x80 {
        return Some(raw);
    }
    raw = raw & 0x7f | byte(start + 1) << 7;
    *at = start + 2;
    if raw < 0x80 << 7 {
        return Some(raw);
    }
    raw = raw & 0x3fff | byte(start + 2) << 14;
    *at = start + 3;
    (raw < 0x80 << 14).then_some(raw)
}

/// Takes the slice by value: handing on the reference would keep the caller's cursor in memory instead of registers.
#[inline(never)]
fn split_raw(bytes: &[u8], bytes_max: usize, max: u64) -> Option<(u64, &[u8])> {
    let mut raw = 0u128;
    for (index, &byte) in bytes.iter().take(bytes_max).enumerate() {
        raw |= u128::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let fits = u64::try_from(raw).ok().filter(|raw| *raw <= max)?;
            return Some((fits, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Bytes that [`write_i32`] writes.
#[inline]
#[must_use]
pub const fn len_i32(value: i32) -> usize {
    len_raw(zigzag32(value) as u64)
}

/// Bytes that [`write_i64`] writes.
#[inline]
#[must_use]
pub const fn len_i64(value: i64) -> usize {
    len_raw(zigzag64(value))
}

const fn len_raw(raw: u64) -> usize {
    // ceil(bits / 7), and one byte for zero.
    (70 - (raw | 1).leading_zeros() as usize) / 7
}

/// Appends an `i32`.
#[inline]
pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_raw(out, zigzag32(value).into());
}

/// Appends an `i64`.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_raw(out, zigzag64(value));
}

#[inline]
fn write_raw(out: &mut Vec<u8>, raw: u64) {
    match raw {
        0..0x80 => out.push(raw as u8),
        0x80..0x4000 => out.extend_from_slice(&[raw as u8 | 0x80, (raw >> 7) as u8]),
        _ => write_long(out, raw),
    }
}

#[inline(never)]
fn write_long(out: &mut Vec<u8>, mut raw: u64) {
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}
