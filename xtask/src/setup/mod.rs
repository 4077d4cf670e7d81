//! `cargo xtask setup`: finds what is missing and installs it, saying so first.
//!
//! The other subcommands call [`ensure`] with what they need, so that nothing has to be prepared by hand.

pub mod apt;
pub mod packages;
pub mod readers;

use crate::cli::SetupArgs;
use crate::error::{Class, Error, Result};
use crate::process;
use crate::qemu::{PROGRAM_VARIABLE, Qemu, X2APIC_SINCE};
use crate::ui;
use crate::workspace::{self, GUEST_TARGET};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Something a subcommand cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The standard library for the kernel's target.
    GuestTarget,
    /// rustfmt and clippy.
    Linters,
    /// QEMU for x86-64.
    Qemu,
}

impl Need {
    const ALL: [Self; 3] = [Self::GuestTarget, Self::Linters, Self::Qemu];

    fn describe(self) -> &'static str {
        match self {
            Self::GuestTarget => "the Rust target x86_64-unknown-none",
            Self::Linters => "rustfmt and clippy",
            Self::Qemu => "QEMU for x86-64",
        }
    }

    fn present(self) -> Result<bool> {
        match self {
            Self::GuestTarget => {
                let output = process::collect(
                    Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()),
                )?;
                let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
                Ok(sysroot.join("lib/rustlib").join(GUEST_TARGET).join("lib").is_dir())
            }
            Self::Linters => {
                let answers = |tool: &str| -> Result<bool> {
                    Ok(process::collect(workspace::cargo().args([tool, "--version"]))?.status.success())
                };
                Ok(answers("fmt")? && answers("clippy")?)
            }
            Self::Qemu => Ok(Qemu::find().is_ok()),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Self::GuestTarget => rustup(&["target", "add"], &[GUEST_TARGET]),
            Self::Linters => rustup(&["component", "add"], &["rustfmt", "clippy"]),
            Self::Qemu if env::var_os(PROGRAM_VARIABLE).is_some() => Qemu::find().map(|_| ()),
            Self::Qemu => packages::install_qemu(),
        }
    }
}

/// The subcommand.
///
/// # Errors
/// [`Class::Missing`]: something is missing (`--check`), or it could not be installed.
pub fn execute(args: &SetupArgs) -> Result<()> {
    if args.check {
        return report_missing();
    }
    ensure(&Need::ALL)?;
    if args.newest || env::var("CI").is_ok_and(|value| value == "true") {
        upgrade()?;
    }
    report_missing()?;
    if args.readers { readers::ensure() } else { Ok(()) }
}

/// Installs those of `needs` that are missing.
///
/// # Errors
/// [`Class::Missing`]: refused, or it failed.
pub fn ensure(needs: &[Need]) -> Result<()> {
    for &need in needs {
        if need.present()? {
            continue;
        }
        if packages::refused() {
            return Err(Error::new(
                Class::Missing,
                format!("{} is missing, and installing is refused", need.describe()),
            )
            .next(format!(
                "install it by hand, or unset {} and run `cargo xtask setup`",
                packages::INSTALL_VARIABLE
            )));
        }
        ui::line(&format!("setup: {} is missing and will be installed", need.describe()));
        need.install()?;
        if !need.present()? {
            return Err(Error::new(
                Class::Missing,
                format!("{} is still missing after its installation", need.describe()),
            )
            .next("install it by hand"));
        }
    }
    Ok(())
}

/// Ensures QEMU and finds it.
///
/// # Errors
/// As [`ensure`].
pub fn qemu() -> Result<Qemu> {
    ensure(&[Need::Qemu])?;
    Qemu::find()
}

/// A newer QEMU, if there is one and the present one lacks features.
fn upgrade() -> Result<()> {
    if Qemu::find()?.version() >= X2APIC_SINCE || packages::refused() {
        return Ok(());
    }
    ui::line(&format!("setup: looking for QEMU {X2APIC_SINCE} or newer, which emulates x2APIC"));
    if let Err(error) = packages::install_newest_qemu() {
        ui::line(&format!("setup: {error}"));
    }
    let version = Qemu::find()?.version();
    if version < X2APIC_SINCE {
        ui::line(&format!(
            "setup: staying with QEMU {version}; tests that need {X2APIC_SINCE} will be skipped"
        ));
    }
    Ok(())
}

fn report_missing() -> Result<()> {
    let mut missing = Vec::new();
    for need in Need::ALL {
        let present = need.present()?;
        ui::line(&format!("{}: {}", need.describe(), if present { "present" } else { "MISSING" }));
        if !present {
            missing.push(need.describe());
        }
    }
    match Qemu::find() {
        Ok(qemu) => ui::line(qemu.banner()),
        Err(error) => ui::line(&error.to_string()),
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(Class::Missing, format!("missing: {}", missing.join(", ")))
        .next("run `cargo xtask setup`"))
}

fn rustup(verb: &[&str], names: &[&str]) -> Result<()> {
    let mut command = Command::new("rustup");
    command.args(verb).args(["--toolchain", &toolchain()?]).args(names);
    ui::line(&format!("setup: rustup {} {}", verb.join(" "), names.join(" ")));
    let status = process::show_to_the_end(&mut command)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Class::Missing, format!("rustup failed ({status})"))
        .next("check the network, or add it to the toolchain by hand"))
}

/// The toolchain that rust-toolchain.toml pins.
fn toolchain() -> Result<String> {
    let path = workspace::root().join("rust-toolchain.toml");
    let text = fs::read_to_string(&path).map_err(|error| Error::io(&error, "read", &path))?;
    let channel = text
        .parse::<toml::Table>()
        .ok()
        .and_then(|table| table.get("toolchain")?.get("channel")?.as_str().map(str::to_owned));
    channel.ok_or_else(|| Error::new(Class::Io, format!("{} names no channel", path.display())))
}
