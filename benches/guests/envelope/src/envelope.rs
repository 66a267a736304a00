//! The new value, which the guest and the native code beside it share.

/// What the new value is made of, in order.
pub(crate) fn parts(value: &[u8]) -> [&[u8]; 3] {
    [b"{\"version\":2,\"data\":", value, b"}"]
}
