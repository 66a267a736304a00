//! A disk that is soon full: a small file system of its own where one may be mounted, else a small budget.
//!
//! Start at [`Disk::new`].

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::common::{Place, arg};

/// Size of the file system: room for a broker that was killed often, and filled at once.
const FILE_SYSTEM_BYTES: u64 = 512 << 20;

/// The budget where no file system may be mounted.
pub(crate) const BUDGET: &str = "160MiB";

/// See the module.
pub(crate) enum Disk {
    /// A file system that nobody else uses.
    Own {
        /// Where it is mounted.
        at: PathBuf,
    },
    /// The one that everybody uses.
    Shared,
}

impl Disk {
    /// Mounts a file system, if that is wanted and permitted.
    pub(crate) fn new(place: &Place, wants_own: bool) -> Disk {
        let at = place.path("disk");
        if wants_own {
            fs::create_dir(&at).expect("a directory in the temporary one");
            if mount_image(&place.path("disk.img"), &at) || mount_memory(&at) {
                return Disk::Own { at };
            }
            eprintln!(
                "!!! NO FILE SYSTEM MAY BE MOUNTED HERE: a full disk is tried with the broker's budget alone !!!"
            );
        }
        Disk::Shared
    }

    /// Where a broker puts its data.
    pub(crate) fn data_dir(&self, place: &Place) -> PathBuf {
        match self {
            Disk::Own { at } => at.join("data"),
            Disk::Shared => place.data_dir(),
        }
    }

    /// Takes all that is left, as a foreign program would. Nothing happens to a disk that others use.
    pub(crate) fn fill(&self) {
        let Disk::Own { at } = self else { return };
        let file = File::create(at.join("foreign")).expect("the name of a file fits on any disk");
        let (mut end, mut step) = (0, FILE_SYSTEM_BYTES);
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), end, step) {
                Ok(()) => end += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => panic!("failed to fill the disk: {error}"),
            }
        }
    }

    /// Gives back what [`Disk::fill`] took.
    pub(crate) fn free(&self) {
        if let Disk::Own { at } = self {
            let _ = fs::remove_file(at.join("foreign"));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Disk::Own { at } = self {
            // Lazily: whoever still looks at it is about to end.
            run("umount", &["-l", arg(at)]);
        }
    }
}

/// A file system in a file.
fn mount_image(image: &Path, at: &Path) -> bool {
    let made = File::create(image).and_then(|file| file.set_len(FILE_SYSTEM_BYTES));
    made.is_ok()
        && run("mkfs.ext4", &["-q", "-F", "-m", "0", arg(image)])
        && run("mount", &["-o", "loop", arg(image), arg(at)])
}

/// A file system in memory.
fn mount_memory(at: &Path) -> bool {
    let size = format!("size={FILE_SYSTEM_BYTES}");
    run("mount", &["-t", "tmpfs", "-o", &size, "weir-chaos", arg(at)])
}

fn run(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
