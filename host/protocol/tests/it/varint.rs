//! Zigzag varints: round trips, known bytes, refusals.

use proptest::prelude::*;
use protocol::varint::{I64_BYTES_MAX, len_i32, len_i64, read_i32, read_i64, write_i32, write_i64};

use crate::common::cases;

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn what_is_written_is_read(a: i32, b: i64, shift in 0u32..64) {
        let (a, b) = (a >> (shift % 32), b >> shift);
        let mut out = Vec::new();
        write_i32(&mut out, a);
        prop_assert_eq!(out.len(), len_i32(a));
        write_i64(&mut out, b);
        prop_assert_eq!(out.len(), len_i32(a) + len_i64(b));
        let mut rest = &out[..];
        prop_assert_eq!((read_i32(&mut rest), read_i64(&mut rest), rest.len()), (Some(a), Some(b), 0));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_left_alone(bytes: Vec<u8>) {
        let mut rest = &bytes[..];
        if read_i32(&mut rest).is_none() {
            prop_assert_eq!(rest, &bytes[..]);
        }
        let mut rest = &bytes[..];
        if read_i64(&mut rest).is_none() {
            prop_assert_eq!(rest, &bytes[..]);
        }
    }
}

#[test]
fn the_ends_of_the_range_have_their_known_bytes() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (-1, &[0x01]),
        (63, &[0x7e]),
        (-64, &[0x7f]),
        (64, &[0x80, 0x01]),
        (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
        (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        let mut out = Vec::new();
        write_i32(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(read_i32(&mut &out[..]), Some(value));
    }
    let mut out = Vec::new();
    write_i64(&mut out, i64::MIN);
    assert_eq!(out.len(), I64_BYTES_MAX);
    assert_eq!(read_i64(&mut &out[..]), Some(i64::MIN));
}

#[test]
fn what_does_not_fit_is_refused() {
    for bytes in [&[][..], &[0x80], &[0xff; 4], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]]
    {
        assert_eq!(read_i32(&mut &bytes[..]), None, "{bytes:x?}");
    }
    for bytes in [&[0xff; 9][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &[0xff; 11]] {
        assert_eq!(read_i64(&mut &bytes[..]), None, "{bytes:x?}");
    }
}
