//! The programs under `user/`: how they are built, and in which order the bundle has them.
//!
//! `.cargo/config.toml` has the guest target linked at a fixed address, for the kernel. Programs are position-independent and linked by a
//! script of their own, so they are built by a Cargo call of their own, with flags that replace the configured ones, in a folder of its
//! own, so that neither build throws away what the other has made.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::workspace::{self, GUEST_TARGET};
use std::fs;
use std::process::Command;

/// Every program, in the order of the numbers by which the kernel knows them. Each is a crate, and a folder under `user/`.
pub const PROGRAMS: &[&str] = &[
    "arbiter", "bench", "caps", "churn", "devices", "fuzz", "hello", "hostile", "matrix", "nop", "pages",
    "peers", "policy", "quota", "signals", "sync", "talk",
];

/// The crate that programs are written with; no program itself.
pub const RUNTIME: &str = "rt";

/// Folder of the programs in the repository and in the bundle.
const FOLDER: &str = "user";
/// Cargo profile.
const PROFILE: &str = "program";

/// A program as the bundle has it.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name of the member.
    pub member: String,
    /// The ELF file, stripped.
    pub content: Vec<u8>,
}

/// Builds all programs.
///
/// # Errors
/// [`Class::BuildFailed`] with the output of the build.
pub fn build() -> Result<Vec<Program>> {
    let target = workspace::target().join("programs");
    let mut command = cargo("build");
    command.args(["--quiet", "--profile", PROFILE]).arg("--target-dir").arg(&target);
    process::succeed(
        &mut command,
        Class::BuildFailed,
        "building the programs",
        "fix what the compiler reports",
    )?;
    let built = target.join(GUEST_TARGET).join(PROFILE);
    let read = |name: &&str| {
        let path = built.join(name);
        let content = fs::read(&path).map_err(|error| Error::io(&error, "read", &path))?;
        Ok(Program { member: format!("{FOLDER}/{name}"), content })
    };
    PROGRAMS.iter().map(read).collect()
}

/// A Cargo subcommand for all programs and the runtime, with the target and flags that they are built with.
#[must_use]
pub fn cargo(subcommand: &str) -> Command {
    let mut command = workspace::cargo();
    command.arg(subcommand).args(["--target", GUEST_TARGET]);
    for name in PROGRAMS.iter().chain([&RUNTIME]) {
        command.args(["-p", name]);
    }
    let script = workspace::root().join(FOLDER).join(RUNTIME).join("program.ld");
    let script = format!("link-arg=-T{}", script.display());
    let flags = ["relocation-model=pie", script.as_str(), "link-arg=-zmax-page-size=4096"];
    let flags: Vec<String> = flags.iter().map(|flag| format!("-C{flag}")).collect();
    // The unit separator is what Cargo wants between them.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env_remove("RUSTFLAGS");
    command
}

/// Adds to a Cargo command for the host that programs, which do not link there, are left out.
pub fn exclude(command: &mut Command) {
    for name in PROGRAMS {
        command.args(["--exclude", name]);
    }
}

#[cfg(test)]
mod tests {
    use super::{FOLDER, PROGRAMS, RUNTIME};
    use crate::workspace;

    #[test]
    fn every_folder_is_a_program_and_in_order() {
        let folders = std::fs::read_dir(workspace::root().join(FOLDER)).unwrap();
        let mut names: Vec<String> =
            folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != RUNTIME);
        names.sort();
        assert_eq!(names, PROGRAMS);
    }
}
