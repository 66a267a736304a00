//! How much memory this process has in hand, and whether it comes back.

/// What the allocator may keep of what an attack made it ask for.
const FORGIVEN_BYTES: u64 = 64 << 20;

/// Resident memory of this process in bytes; 0 where the system does not tell.
pub(crate) fn bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

/// Memory is back near `before`.
pub(crate) fn assert_is_back(before: u64, name: &str) {
    let after = bytes();
    assert!(after <= before + FORGIVEN_BYTES, "`{name}` left {} MiB, before it were {}", after >> 20, before >> 20);
}

#[test]
fn what_is_held_is_seen() {
    let before = bytes();
    if before > 0 {
        let held = vec![1_u8; 2 * FORGIVEN_BYTES as usize];
        assert!(bytes() > before + FORGIVEN_BYTES);
        drop(held);
    }
}
