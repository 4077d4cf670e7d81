//! Package managers: which one there is, and how it installs QEMU or, on Debian and what descends from it, another package.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::setup::apt::{self, Backports, Source};
use crate::ui;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set to `never`, this variable refuses every installation.
pub const INSTALL_VARIABLE: &str = "NEARFIELD_INSTALL";
/// The file that adds the backports suite.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/nearfield-backports.sources";
const APT_PACKAGE: &str = "qemu-system-x86";

/// How one package manager installs QEMU.
#[derive(Debug)]
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    privilege: Privilege,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privilege {
    Root,
    User,
}

const MANAGERS: &[Manager] = &[
    Manager {
        program: "apt-get",
        install: &["install", "--yes", "--no-install-recommends", APT_PACKAGE],
        privilege: Privilege::Root,
    },
    Manager {
        program: "dnf",
        install: &["install", "--assumeyes", "qemu-system-x86-core"],
        privilege: Privilege::Root,
    },
    Manager {
        program: "pacman",
        install: &["-Sy", "--noconfirm", "--needed", "qemu-system-x86"],
        privilege: Privilege::Root,
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install", "qemu-x86"],
        privilege: Privilege::Root,
    },
    Manager { program: "brew", install: &["install", "qemu"], privilege: Privilege::User },
];

/// Whether the user refused installations.
#[must_use]
pub fn refused() -> bool {
    env::var(INSTALL_VARIABLE).is_ok_and(|value| value == "never")
}

/// Installs QEMU with the package manager of this system.
///
/// # Errors
/// [`Class::Missing`]: refused, no known package manager, or it failed.
pub fn install_qemu() -> Result<()> {
    let manager = MANAGERS.iter().find(|manager| in_path(manager.program)).ok_or_else(|| {
        Error::new(Class::Missing, "QEMU is missing and no known package manager was found")
            .next("install QEMU for x86-64 by hand")
    })?;
    let install = || execute(manager.program, manager.install, manager.privilege);
    if manager.program != "apt-get" {
        return install();
    }
    with_lists(has_lists(), install, || execute("apt-get", &["update"], Privilege::Root))
}

/// Installs a package of Debian's.
///
/// # Errors
/// [`Class::Missing`]: there is no apt, or it failed.
pub fn install_debian(package: &str) -> Result<()> {
    if !in_path("apt-get") {
        return Err(Error::new(Class::Missing, format!("{package} is missing, and there is no apt-get"))
            .next("install by hand what your system has in its place"));
    }
    let arguments = ["install", "--yes", "--no-install-recommends", package];
    let install = || execute("apt-get", &arguments, Privilege::Root);
    with_lists(has_lists(), install, || execute("apt-get", &["update"], Privilege::Root))
}

/// Installs with package lists that are there and new enough: lists from earlier may name versions that the mirror no
/// longer has, so a failed installation is tried once more with new ones.
fn with_lists(
    present: bool,
    install: impl Fn() -> Result<()>,
    update: impl Fn() -> Result<()>,
) -> Result<()> {
    if !present {
        update()?;
        return install();
    }
    match install() {
        Err(error) if error.class() == Class::Missing => {
            ui::line("setup: the package lists may be too old, trying once more with new ones");
            update()?;
            install()
        }
        result => result,
    }
}

/// Installs the newest QEMU this system's mirror offers, its backports suite included.
///
/// # Errors
/// [`Class::Missing`], as [`install_qemu`].
pub fn install_newest_qemu() -> Result<()> {
    if !in_path("apt-get") {
        return install_qemu();
    }
    let Some(codename) = fs::read_to_string("/etc/os-release").ok().and_then(|text| apt::codename(&text))
    else {
        return install_qemu();
    };
    let added = match apt::backports(&sources(), &codename) {
        Backports::Configured => false,
        Backports::Derived(text) => {
            ui::line(&format!(
                "setup: adding the suite {codename}-backports of the mirror in use: {BACKPORTS_FILE}"
            ));
            write_as_root(Path::new(BACKPORTS_FILE), &text)?;
            true
        }
        Backports::Unknown => return install_qemu(),
    };
    let updated = execute("apt-get", &["update"], Privilege::Root);
    if added && (updated.is_err() || !backports_are_newer()?) {
        ui::line(&format!("setup: {codename}-backports has no newer QEMU, removing {BACKPORTS_FILE}"));
        execute("rm", &[BACKPORTS_FILE], Privilege::Root)?;
        execute("apt-get", &["update"], Privilege::Root)?;
        return install_qemu();
    }
    updated?;
    if !backports_are_newer()? {
        return install_qemu();
    }
    let suite = format!("{codename}-backports");
    let arguments = ["install", "--yes", "--no-install-recommends", "--target-release", &suite, APT_PACKAGE];
    execute("apt-get", &arguments, Privilege::Root)
}

fn backports_are_newer() -> Result<bool> {
    let output = process::collect(Command::new("apt-cache").args(["madison", APT_PACKAGE]))?;
    match apt::offered(&String::from_utf8_lossy(&output.stdout)) {
        (Some(backports), Some(plain)) => {
            let mut compare = Command::new("dpkg");
            compare.args(["--compare-versions", &backports, "gt", &plain]);
            Ok(process::collect(&mut compare)?.status.success())
        }
        (backports, _) => Ok(backports.is_some()),
    }
}

/// Every source apt has; what cannot be read is not there.
fn sources() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => apt::parse_list(&text),
            Some("sources") => apt::parse_deb822(&text),
            _ => Vec::new(),
        }
    };
    files.iter().flat_map(read).collect()
}

fn has_lists() -> bool {
    let Ok(entries) = fs::read_dir("/var/lib/apt/lists") else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

/// Says what is run, then runs it with the user's terminal.
fn execute(program: &str, arguments: &[&str], privilege: Privilege) -> Result<()> {
    let mut command = privileged(program, privilege)?;
    command.args(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    ui::line(&format!("setup: {}", line.join(" ")));
    let status = process::show_to_the_end(&mut command)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Class::Missing, format!("`{program} {}` failed ({status})", arguments.join(" ")))
        .next("read its message above, or install what is missing by hand"))
}

/// `program`, through sudo if root is needed and we are not.
fn privileged(program: &str, privilege: Privilege) -> Result<Command> {
    let mut command = if privilege == Privilege::User || is_root()? {
        Command::new(program)
    } else if in_path("sudo") {
        let mut sudo = Command::new("sudo");
        // Environment variables do not pass sudo, so the question apt may ask is switched off here.
        sudo.args(["DEBIAN_FRONTEND=noninteractive", program]);
        sudo
    } else {
        return Err(Error::new(Class::Missing, format!("`{program}` needs root, and there is no sudo"))
            .next("run `cargo xtask setup` as root once, or install what is missing by hand"));
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn write_as_root(path: &Path, text: &str) -> Result<()> {
    let mut command = privileged("tee", Privilege::Root)?;
    let fail = |error: std::io::Error| Error::io(&error, "write", path);
    let mut child = command.arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(fail)?;
    }
    if child.wait().map_err(fail)?.success() {
        return Ok(());
    }
    Err(Error::new(Class::Missing, format!("cannot write {}", path.display()))
        .next("run `cargo xtask setup` as root"))
}

fn is_root() -> Result<bool> {
    let output = process::collect(Command::new("id").arg("-u"))?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// Whether `PATH` has this program.
#[must_use]
pub fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::with_lists;
    use crate::error::{Class, Error};
    use std::cell::RefCell;

    /// What is run when the first `failures` installations fail with `class`, and whether it succeeds.
    fn steps(present: bool, failures: usize, class: Class) -> (Vec<&'static str>, bool) {
        let steps = RefCell::new(Vec::new());
        let install = || {
            steps.borrow_mut().push("install");
            let tried = steps.borrow().iter().filter(|step| **step == "install").count();
            if tried <= failures { Err(Error::new(class, "no such version")) } else { Ok(()) }
        };
        let update = || {
            steps.borrow_mut().push("update");
            Ok(())
        };
        let good = with_lists(present, install, update).is_ok();
        (steps.into_inner(), good)
    }

    #[test]
    fn stale_lists_are_updated_once() {
        assert_eq!(steps(true, 0, Class::Missing), (vec!["install"], true));
        assert_eq!(steps(false, 0, Class::Missing), (vec!["update", "install"], true));
        assert_eq!(steps(true, 1, Class::Missing), (vec!["install", "update", "install"], true));
        assert_eq!(steps(true, 9, Class::Missing), (vec!["install", "update", "install"], false));
        assert_eq!(steps(true, 9, Class::Interrupted), (vec!["install"], false));
    }
}
