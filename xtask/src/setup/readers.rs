//! `cargo xtask setup --readers`: programs of others that read what we write, so that tests can have them judge it.
//!
//! Those in Python, and the linter of workflows, go to a virtual environment in the build output: the versions and hashes of `readers.txt`,
//! from the index that pip is set up to use. HdrHistogram's own reader, in Java, is a package of Debian's, taken where there is Java already.
//! Nothing but tests needs any of it: without its reader a test is skipped and says how to get it.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::setup::packages;
use crate::ui;
use crate::workspace;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to run for readers that are missing.
#[cfg(test)]
pub const COMMAND: &str = "cargo xtask setup --readers";
const REQUIREMENTS: &str = include_str!("readers.txt");
/// In the environment, once all is installed: the requirements that it was made from.
const STAMP: &str = "requirements.txt";
/// What has to be importable: an environment outlives the Python that made it.
const MODULES: &str = "import hdrh.log, prometheus_client.openmetrics.parser";
/// Debian's package of HdrHistogram for Java, and where it puts it.
const JAVA_PACKAGE: &str = "libhdrhistogram-java";
const JAVA_ARCHIVE: &str = "/usr/share/java/hdrhistogram.jar";

fn environment() -> PathBuf {
    workspace::target().join("nearfield/readers")
}

/// A program of the environment, if that has been made.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = environment().join("bin").join(name);
    (environment().join(STAMP).is_file() && path.is_file()).then_some(path)
}

/// The archive with HdrHistogram's Java classes; `NEARFIELD_HDRHISTOGRAM` names another.
#[must_use]
pub fn java_archive() -> Option<PathBuf> {
    let path = env::var_os("NEARFIELD_HDRHISTOGRAM").unwrap_or_else(|| JAVA_ARCHIVE.into());
    Some(PathBuf::from(path)).filter(|path| path.is_file() && packages::in_path("java"))
}

/// Installs what is missing.
///
/// # Errors
/// [`Class::Missing`]: refused, no Python, or the index cannot be reached. The Java reader is never an error.
pub fn ensure() -> Result<()> {
    ensure_java()?;
    let folder = environment();
    if present(&folder)? {
        ui::line(&format!("the readers of exports: present ({})", names()));
    } else if packages::refused() {
        return Err(missing("the readers of exports are missing, and installing is refused"));
    } else {
        ui::line(&format!("setup: installing the readers of exports in {}: {}", folder.display(), names()));
        make(&folder)?;
    }
    Ok(())
}

/// Names and versions, for people.
fn names() -> String {
    let pinned = REQUIREMENTS.lines().filter(|line| !line.starts_with([' ', '#']));
    pinned.map(|line| line.trim_end_matches([' ', '\\'])).collect::<Vec<_>>().join(", ")
}

fn present(folder: &Path) -> Result<bool> {
    let stamp = fs::read_to_string(folder.join(STAMP));
    let python = folder.join("bin/python");
    if !stamp.is_ok_and(|text| text == REQUIREMENTS) || !python.is_file() {
        return Ok(false);
    }
    Ok(process::collect(Command::new(python).args(["-c", MODULES]))?.status.success())
}

fn make(folder: &Path) -> Result<()> {
    let can_make = || -> Result<bool> {
        let probe = packages::in_path("python3")
            && process::collect(Command::new("python3").args(["-c", "import ensurepip, venv"]))?
                .status
                .success();
        Ok(probe)
    };
    if !can_make()? {
        ui::line("setup: python3 is missing, or its module venv, and will be installed");
        packages::install_debian("python3-venv")?;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let requirements = folder.join("wanted.txt");
    write(&requirements)?;
    let mut pip = Command::new(folder.join("bin/python"));
    // Each given here, because a user's own pip may be told otherwise: an index that does not answer costs a minute, not an hour.
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--timeout", "15", "--retries", "2"])
        .args(["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement"])
        .arg(&requirements);
    run(&mut pip)?;
    write(&folder.join(STAMP))
}

fn write(path: &Path) -> Result<()> {
    fs::write(path, REQUIREMENTS).map_err(|error| Error::io(&error, "write", path))
}

fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}").replace('"', "");
    ui::line(&format!("setup: {line}"));
    let status = process::show_to_the_end(command)?;
    if status.success() {
        return Ok(());
    }
    Err(missing(format!("the readers of exports could not be installed ({status})")))
}

fn missing(what: impl Into<String>) -> Error {
    Error::new(Class::Missing, what.into())
        .next("nothing but their tests needs them, and those are skipped; NEARFIELD_PYTHON names a Python that has them")
}

/// Takes the Java reader where it costs a small archive and not a Java as well.
fn ensure_java() -> Result<()> {
    if java_archive().is_none() && packages::in_path("java") && !packages::refused() {
        match packages::install_debian(JAVA_PACKAGE) {
            Err(error) if error.class() == Class::Interrupted => return Err(error),
            Err(error) => ui::line(&format!("setup: {error}")),
            Ok(()) => {}
        }
    }
    ui::line(match java_archive() {
        Some(_) => "HdrHistogram's reader in Java: present",
        None => "HdrHistogram's reader in Java: not here (needs java, and the package libhdrhistogram-java)",
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{REQUIREMENTS, names};

    /// Planted: a package without a hash.
    #[test]
    fn every_reader_has_a_version_and_hashes() {
        let pinned: Vec<&str> = REQUIREMENTS.split("\n    --hash=sha256:").collect();
        let (first, hashes) = pinned.split_first().unwrap();
        assert!(first.contains("==") && hashes.len() >= names().split(", ").count());
        let mut stanzas = REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).peekable();
        while let Some(line) = stanzas.next() {
            if line.starts_with(' ') {
                let hash = line.trim().trim_end_matches([' ', '\\']).strip_prefix("--hash=sha256:").unwrap();
                assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
            } else {
                assert!(line.contains("=="), "{line}");
                assert!(stanzas.peek().is_some_and(|next| next.starts_with("    --hash=")), "{line}");
            }
        }
    }
}
