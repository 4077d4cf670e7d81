//! Where things are: the repository, the build output, the cargo that runs us.

use crate::error::{Error, Result};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target the kernel and the loader are built for.
pub const GUEST_TARGET: &str = "x86_64-unknown-none";

/// The top folder of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A path as it is named in the top folder.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The folder of build output.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A folder for what xtask itself produces, created if it is missing.
///
/// # Errors
/// It cannot be created.
pub fn output(name: &str) -> Result<PathBuf> {
    let folder = target().join("nearfield").join(name);
    std::fs::create_dir_all(&folder).map_err(|error| Error::io(&error, "create", &folder))?;
    Ok(folder)
}

/// The cargo that started us, in the top folder of the repository.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}
