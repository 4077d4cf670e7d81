//! `cargo xtask check`: everything that can be said about the source without running the kernel.

mod layers;
mod licences;
mod manual;
mod rules;
mod source;

#[cfg(test)]
mod workflow_tests;

use crate::cli::CheckArgs;
use crate::error::{Class, Error, Result};
use crate::process;
use crate::programs;
use crate::setup::{self, Need};
use crate::ui::{self, Progress};
use crate::workspace::{self, GUEST_TARGET};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// One check: its name and what it finds, one line for each finding.
struct Check {
    name: &'static str,
    find: fn() -> Result<Vec<String>>,
}

const CHECKS: &[Check] = &[
    Check { name: "format", find: format },
    Check { name: "layers", find: || metadata().map(|metadata| layers::find(&metadata)) },
    Check { name: "licences", find: || metadata().map(|metadata| licences::find(&metadata)) },
    Check { name: "rules", find: || Ok(rules::find(&source::files()?)) },
    Check { name: "manual", find: manual_page },
    Check { name: "lints", find: lints },
];

/// The subcommand.
///
/// # Errors
/// [`Class::CheckFailed`] when a check finds something.
pub fn execute(args: &CheckArgs) -> Result<()> {
    if args.write_manual {
        let path = workspace::root().join(manual::PATH);
        fs::write(&path, manual::page()).map_err(|error| Error::io(&error, "write", &path))?;
        ui::line(&format!("check: wrote {}", path.display()));
        return Ok(());
    }
    setup::ensure(&[Need::GuestTarget, Need::Linters])?;
    let selected = CHECKS.iter().filter(|check| args.only.as_deref().is_none_or(|only| only == check.name));
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for check in selected {
        let progress = Progress::start(&format!("check: {}", check.name), None);
        let findings = (check.find)()?;
        drop(progress);
        for finding in &findings {
            ui::line(finding);
        }
        if findings.is_empty() {
            passed += 1;
            ui::line(&format!("check: {} ok", check.name));
        } else {
            failed += 1;
            ui::line(&format!("check: {} FAILED", check.name));
        }
    }
    ui::line(&format!("{passed} passed, {failed} failed"));
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(Class::CheckFailed, format!("{failed} of {} checks failed", passed + failed))
        .next("fix what is listed above; `cargo fmt` mends the format"))
}

fn manual_page() -> Result<Vec<String>> {
    let path = workspace::root().join(manual::PATH);
    let there = fs::read_to_string(&path).map_err(|error| Error::io(&error, "read", &path))?;
    Ok(manual::find(&there))
}

fn format() -> Result<Vec<String>> {
    findings(workspace::cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<Vec<String>> {
    let mut host = workspace::cargo();
    host.args(["clippy", "--quiet", "--workspace", "--exclude", "kernel", "--all-targets"]);
    programs::exclude(&mut host);
    host.args(["--", "-D", "warnings"]);
    let mut guest = workspace::cargo();
    guest.args([
        "clippy",
        "--quiet",
        "-p",
        "kernel",
        "-p",
        "boot",
        "--target",
        GUEST_TARGET,
        "--",
        "-D",
        "warnings",
    ]);
    guest.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let mut user = programs::cargo("clippy");
    user.args(["--quiet", "--", "-D", "warnings"]);
    Ok([findings(&mut host)?, findings(&mut guest)?, findings(&mut user)?].concat())
}

/// The output of a command that failed; nothing if it succeeded.
fn findings(command: &mut Command) -> Result<Vec<String>> {
    let output = process::collect(command)?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let text = [output.stdout, output.stderr].concat();
    let mut lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
    lines.push(format!("({})", output.status));
    Ok(lines)
}

/// What cargo knows about the workspace and its dependencies.
fn metadata() -> Result<Value> {
    let mut command = workspace::cargo();
    command.args(["metadata", "--format-version", "1", "--locked"]);
    let next = "commit the Cargo.lock that `cargo build` writes";
    let output = process::succeed(&mut command, Class::CheckFailed, "cargo metadata", next)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::new(Class::CheckFailed, format!("cargo metadata gave no JSON: {error}")))
}
