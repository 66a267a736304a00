//! The manifest of a backup.

use std::path::Path;

use crate::backup::manifest::{Manifest, decode};

use super::round_trip;

/// Any bytes as the file, and as its body behind a right head.
pub fn manifest(data: &[u8]) {
    check(data);
    if let Some(manifest) = round_trip::<Manifest>(data) {
        check(&manifest.encode());
    }
}

fn check(file: &[u8]) {
    let path = Path::new("backup.manifest");
    let Ok(manifest) = decode(path, file) else { return };
    assert_eq!(decode(path, &manifest.encode()).ok().as_ref(), Some(&manifest));
    let snapshots = manifest.snapshots.iter().flat_map(|snapshot| [snapshot.sequence, snapshot.last_sequence]);
    let segments = manifest.segments.iter().flat_map(|entry| [entry.first_sequence, entry.last_sequence]);
    let commits: Vec<u64> = snapshots.chain(segments).chain([0, u64::MAX]).collect();
    for commit in commits {
        check_plan(&manifest, commit);
    }
    for run in manifest.restorable() {
        assert!(run.commit_min <= run.commit_max && run.time_min_ms <= run.time_max_ms);
        assert!(manifest.plan(run.commit_max).is_some(), "commit {} is said to be restorable", run.commit_max);
    }
    check_pruned(manifest);
}

fn check_plan(manifest: &Manifest, commit: u64) {
    let Some(plan) = manifest.plan(commit) else { return };
    assert!(plan.snapshot.sequence <= commit, "a restore begins behind its end");
    let last = plan.cut.or_else(|| plan.whole.last().copied()).expect("a restore ends in a segment");
    assert!(last.last_sequence >= commit && plan.cut.is_none_or(|cut| cut.last_sequence > commit));
}

/// What is kept and what is forgotten is what was there.
fn check_pruned(mut manifest: Manifest) {
    let before = (manifest.segments.len(), manifest.snapshots.len());
    let gone = manifest.prune(1);
    assert!(manifest.snapshots.len() <= 1);
    assert!(manifest.segments.len() <= before.0 && gone.segments.len() <= before.0);
    assert!(gone.snapshots.len() <= before.1);
    for entry in &gone.segments {
        assert!(manifest.segment(entry.key).is_none(), "a segment is kept and forgotten");
    }
}
