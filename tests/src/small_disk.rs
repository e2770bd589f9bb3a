//! A disk of a few KiB or MiB of a test's own, which it may fill to the last byte: a tmpfs.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk that is taken away when this goes out of scope.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one at a directory, which is made where there is none; none, loudly, where we may not: that wants root, and
    /// no set-up can give it.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn mount(at: &Path, kib: usize) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "tidegate-tests"]).arg(at);
        let why = match mount.output() {
            Ok(done) if done.status.success() => return Some(Self { at: at.to_owned() }),
            Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let thread = std::thread::current();
        // Nobody reads stderr when this write fails.
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no small disk can be mounted here ({why})");
        None
    }

    /// Uses up all that is left.
    ///
    /// # Panics
    /// When it fails otherwise than for want of room.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        // In ever smaller pieces, so that not a byte is left.
        for bytes in [1 << 20, 1 << 12, 1] {
            let piece = vec![b'x'; bytes];
            loop {
                match ballast.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("could not fill the small disk: {error}"),
                }
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever has files open keeps them; nobody else sees the disk any more.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
