//! Writing to disk: replace a file as a whole, or let it grow. A trait, so that tests can fill the disk up.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Whether bytes must have reached the disk when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Wait for the disk.
    Now,
    /// Leave it to the operating system.
    Later,
}

/// Where a run is written to.
pub trait Disk {
    /// Creates a directory that must not exist yet, and its parents.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Puts a file in place as a whole: a reader sees the old content or the new one.
    ///
    /// # Errors
    /// Whatever the file system says; the old content is then untouched.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Appends to a file, creating it if needed.
    ///
    /// # Errors
    /// Whatever the file system says; part of the bytes may have been appended.
    fn append(&self, path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Disk for FileSystem {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = sibling(path);
        let written = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // Best effort: the leftover is ignored by readers, and the first error is the one worth reporting.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        sync_dir(path)
    }

    fn append(&self, path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(bytes)?;
        match sync {
            Sync::Now => file.sync_all(),
            Sync::Later => Ok(()),
        }
    }
}

/// The temporary name a file has until it is whole. The leading dot keeps it out of listings.
fn sibling(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename in the parent of `path` durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, FileSystem, Sync};
    use crate::results::testing;
    use std::fs;

    #[test]
    fn replace_leaves_no_temporary_and_append_grows() {
        let dir = testing::TempDir::new("disk");
        let file = dir.path().join("a.json");
        FileSystem.replace(&file, b"one").unwrap();
        FileSystem.replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        FileSystem.append(&file, b"+", Sync::Now).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two+");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_never_reused() {
        let dir = testing::TempDir::new("disk-dir");
        let run = dir.path().join("a/b");
        FileSystem.make_dir(&run).unwrap();
        assert!(FileSystem.make_dir(&run).is_err());
    }
}
