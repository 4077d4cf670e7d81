//! What a machine boots: builds the kernel and the loader, and packs the bundle.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::programs::{self, Program};
use crate::qemu::Payload;
use crate::workspace::{self, GUEST_TARGET};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How the guest is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// As it is measured and tested: with its symbol table, without line numbers.
    Plain,
    /// The same code with line numbers, for a debugger.
    Debuggable,
    /// With delays in the windows of races, for hunting them; never measured.
    Racing,
    /// As [`Flavour::Racing`], with a planted bug that the hunt has to notice: shootdowns are acknowledged too early.
    EarlyAck,
    /// As [`Flavour::Racing`], with a planted bug that the hunt has to notice: what is derived does not go with what it was derived of.
    LateDerive,
    /// As [`Flavour::Racing`], with a planted bug that the hunt has to notice: a revocation returns while others still use what it revokes.
    HastyRevoke,
    /// With flaws that the gates have to notice: a message takes eight instructions more, `cap_info` tens of thousands.
    SlowCall,
}

impl Flavour {
    /// The Cargo profile.
    const fn profile(self) -> &'static str {
        match self {
            Self::Plain
            | Self::Racing
            | Self::EarlyAck
            | Self::LateDerive
            | Self::HastyRevoke
            | Self::SlowCall => "kernel",
            Self::Debuggable => "kernel-debug",
        }
    }

    /// The kernel's Cargo features.
    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Debuggable => &[],
            Self::Racing => &["race"],
            Self::EarlyAck => &["race", "early-ack"],
            Self::LateDerive => &["race", "late-derive"],
            Self::HastyRevoke => &["race", "hasty-revoke"],
            Self::SlowCall => &["slow-call"],
        }
    }

    /// The folder of its build output inside the usual one; none for those that share it. Features do not change where Cargo puts what
    /// it has built, so a flavour with some of its own would take the plain one's place. Those with features take each other's, which
    /// saves building everything a third time: only the bundle made at once is used of them.
    const fn folder(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::Debuggable => None,
            Self::Racing | Self::EarlyAck | Self::LateDerive | Self::HastyRevoke | Self::SlowCall => {
                Some("racing")
            }
        }
    }

    /// The folder of its bundle.
    const fn bundle(self) -> &'static str {
        match self {
            Self::Plain | Self::Debuggable => "image",
            Self::Racing => "racing",
            Self::EarlyAck => "early-ack",
            Self::LateDerive => "late-derive",
            Self::HastyRevoke => "hasty-revoke",
            Self::SlowCall => "slow-call",
        }
    }

    /// The flavour that a user's word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "plain" => Some(Self::Plain),
            "racing" => Some(Self::Racing),
            "early-ack" => Some(Self::EarlyAck),
            "late-derive" => Some(Self::LateDerive),
            "hasty-revoke" => Some(Self::HastyRevoke),
            _ => None,
        }
    }
}

/// Name of the kernel inside the bundle.
const KERNEL_MEMBER: &str = "kernel";

/// The built guest.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel, an ELF with symbols.
    pub kernel: PathBuf,
    /// What QEMU is given.
    pub payload: Payload,
}

/// Builds the kernel, the loader and the programs, and packs the bundle.
///
/// # Errors
/// [`Class::BuildFailed`] with the output of the build.
pub fn build(flavour: Flavour) -> Result<Image> {
    let profile = flavour.profile();
    let mut command = workspace::cargo();
    command.args(["build", "--quiet", "-p", "kernel", "-p", "boot"]);
    command.args(["--target", GUEST_TARGET, "--profile", profile]);
    for feature in flavour.features() {
        command.args(["--features", &format!("kernel/{feature}")]);
    }
    let target = flavour.folder().map_or_else(workspace::target, |folder| workspace::target().join(folder));
    command.arg("--target-dir").arg(&target);
    // They would replace the code model that .cargo/config.toml asks for.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let next = "fix what the compiler reports, or run `cargo xtask setup`";
    process::succeed(&mut command, Class::BuildFailed, "building the kernel and the loader", next)?;
    let built = target.join(GUEST_TARGET).join(profile);
    let (kernel, loader) = (built.join("kernel"), built.join("boot"));
    let bundle = workspace::output(flavour.bundle())?.join("bundle.tar");
    let content = fs::read(&kernel).map_err(|error| Error::io(&error, "read", &kernel))?;
    write_bundle(&bundle, &content, &programs::build()?)?;
    Ok(Image { kernel, payload: Payload { loader, bundle: Some(bundle) } })
}

/// Writes a bundle of a kernel and programs.
///
/// # Errors
/// The file cannot be written.
pub fn write_bundle(path: &Path, kernel: &[u8], programs: &[Program]) -> Result<()> {
    let fail = |error: io::Error| Error::io(&error, "write", path);
    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    let programs = programs.iter().map(|program| (program.member.as_str(), program.content.as_slice()));
    let members: Vec<_> = [(KERNEL_MEMBER, kernel)].into_iter().chain(programs).collect();
    pack(&mut file, &members).and_then(|()| file.flush()).map_err(fail)
}

/// An uncompressed ustar archive whose bytes depend on nothing but the members.
fn pack(out: impl Write, members: &[(&str, &[u8])]) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(content.len()).map_err(io::Error::other)?);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::{Flavour, pack};

    #[test]
    fn flavours_with_features_stay_out_of_the_plain_ones_way() {
        let words = ["plain", "racing", "early-ack", "late-derive", "hasty-revoke"];
        let flavours = words.map(|word| Flavour::parse(word).unwrap());
        for (i, flavour) in flavours.into_iter().enumerate() {
            assert_eq!(flavour.features().is_empty(), flavour.folder().is_none(), "{flavour:?}");
            assert!(flavours[..i].iter().all(|other| other.bundle() != flavour.bundle()), "{flavour:?}");
        }
        assert_eq!(Flavour::parse("debuggable"), None);
    }

    #[test]
    fn bundles_are_ustar() {
        let mut bytes = Vec::new();
        pack(&mut bytes, &[("kernel", &[7; 513]), ("cmdline", b"mode=idle")]).unwrap();
        assert_eq!(&bytes[..7], b"kernel\0");
        assert_eq!(&bytes[257..263], b"ustar\0");
        assert_eq!(&bytes[512..1025], &[7; 513]);
        assert_eq!(&bytes[512 + 1024..][..8], b"cmdline\0");
        assert!(bytes.len().is_multiple_of(512));
    }
}
