//! Measures a Linux: the distribution's kernel, our own static programs (`peers/linux/`) as its only file system, one core, counted instructions.
//!
//! Nothing is installed but a C compiler where there is none: the kernel's package is downloaded and unpacked in the build folder.

use super::{Figure, PeerFile, VERSION, cpio};
use crate::cli::LinuxArgs;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::qemu::{Accelerator, Payload, QemuSpec};
use crate::setup;
use crate::setup::packages;
use crate::topology::{Mebibytes, Topology};
use crate::{process, ui, workspace};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The package that depends on the newest kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// The cheapest Linux: no mitigation that Nearfield's figures do not pay for either.
const COMMAND_LINE: &str = "console=ttyS0 quiet mitigations=off nokaslr panic=-1";
const LIMITS: Limits = Limits { total: Duration::from_secs(900), silence: Duration::from_secs(300) };

/// What a boot said.
#[derive(Debug, Default)]
struct Heard {
    release: Option<String>,
    figures: Vec<Figure>,
    error: Option<String>,
    done: bool,
}

/// Builds, boots and measures.
pub(super) fn measure(args: &LinuxArgs) -> Result<PeerFile> {
    let qemu = setup::qemu()?;
    let folder = workspace::output("linux")?;
    let kernel = match &args.kernel {
        Some(path) => path.clone(),
        None => fetch(&folder)?,
    };
    let initrd = folder.join("initrd");
    let files = [
        ("init", compile(&folder, "bench", &["-pthread"])?),
        ("leave", compile(&folder, "leave", &["-nostdlib"])?),
    ];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, content.as_slice())).collect();
    fs::write(&initrd, cpio::pack(&files)).map_err(|error| Error::io(&error, "write", &initrd))?;
    ui::line(&format!("peers: booting {} under counted instructions", kernel.display()));
    let spec = QemuSpec::new(Topology::even(1, 1, Mebibytes::new(512))?, Accelerator::Icount);
    let payload = Payload { loader: kernel, bundle: Some(initrd) };
    let mut session = Session::start(&qemu, &spec, &payload, COMMAND_LINE)?;
    let mut heard = Heard::default();
    let end = session.listen(LIMITS, |event| {
        if let Event::Text(line) = event {
            heard.note(line);
        }
        if heard.done || heard.error.is_some() { Flow::Stop } else { Flow::Continue }
    })?;
    if end == End::Interrupted {
        return Err(Error::new(Class::Interrupted, "interrupted"));
    }
    let what = match (&heard.error, heard.done) {
        (Some(error), _) => Some(error.clone()),
        (None, false) => Some(end.to_string()),
        (None, true) => None,
    };
    if let Some(what) = what {
        let log = session.tail();
        return Err(Error::new(
            Class::QemuFailed,
            format!("Linux was not measured to the end: {what}\n{log}"),
        )
        .next("start the command line above by hand, without `quiet`"));
    }
    Ok(heard.file(qemu.banner()))
}

impl Heard {
    /// One line of the serial port; other lines are the kernel's.
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.trim().split(' ').collect();
        match words.as_slice() {
            ["peer-system", _, release] => self.release = Some((*release).to_owned()),
            ["peer", case, _batch, _samples, _min, median, _p99] => match figure(case, median) {
                Some(figure) => self.figures.push(figure),
                None => self.error = Some(format!("not understood: {line}")),
            },
            ["peer-error", ..] => self.error = Some(line.to_owned()),
            ["peer-done"] => self.done = true,
            _ => {}
        }
    }

    fn file(self, qemu: &str) -> PeerFile {
        PeerFile {
            schema: VERSION,
            system: "Linux".to_owned(),
            version: self.release.unwrap_or_else(|| "unknown".to_owned()),
            configuration: format!(
                "kernel of the package {PACKAGE}; one core, {COMMAND_LINE}; static glibc program"
            ),
            lane: "icount".to_owned(),
            obtained: format!(
                "cargo xtask peers linux: medians of 200 samples by peers/linux/bench.c; {qemu}"
            ),
            figures: self.figures,
        }
    }
}

/// `name/param=value,…,with=how` and its median; what it was done with is no parameter of ours.
fn figure(case: &str, median: &str) -> Option<Figure> {
    let (name, rest) = case.split_once('/').unwrap_or((case, ""));
    let mut params = BTreeMap::new();
    let mut by = name.split('.').next_back()?.to_owned();
    for pair in rest.split(',').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=')? {
            ("with", how) => by = how.to_owned(),
            (name, value) => drop(params.insert(name.to_owned(), value.to_owned())),
        }
    }
    let figure = median.parse().ok()?;
    Some(Figure { name: name.to_owned(), params, by, figure, unit: "milliinstructions".to_owned() })
}

/// A program of `peers/linux`, built statically.
fn compile(folder: &Path, name: &str, flags: &[&str]) -> Result<Vec<u8>> {
    let source = workspace::root().join("peers/linux").join(format!("{name}.c"));
    let built = folder.join(name);
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"])
        .arg(&built)
        .arg(&source)
        .args(flags);
    let next = "install a C compiler and a static C library: `apt-get install gcc libc6-dev`";
    process::succeed(&mut command, Class::BuildFailed, "building the programs for Linux", next)?;
    fs::read(&built).map_err(|error| Error::io(&error, "read", &built))
}

/// The kernel of the newest package that apt offers, unpacked in `folder`; downloaded once.
fn fetch(folder: &Path) -> Result<PathBuf> {
    if let Some(kernel) = newest(&folder.join("package/boot")) {
        return Ok(kernel);
    }
    if packages::refused() {
        return Err(Error::new(Class::Missing, "the Linux kernel is missing, and downloading is refused")
            .next("pass one with --kernel, for example /boot/vmlinuz"));
    }
    let package = package()?;
    ui::line(&format!(
        "peers: apt-get download {package}, unpacked in {}; nothing is installed",
        folder.display()
    ));
    let next = "run `apt-get update`, or pass a kernel with --kernel";
    let mut download = Command::new("apt-get");
    download.args(["download", &package]).current_dir(folder);
    process::succeed(&mut download, Class::Missing, "downloading the kernel", next)?;
    let archive = files(folder).into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&package) && name.ends_with(".deb")
    });
    let archive =
        archive.ok_or_else(|| Error::new(Class::Missing, format!("apt-get left no {package}*.deb")))?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(archive).arg(folder.join("package"));
    process::succeed(&mut unpack, Class::Missing, "unpacking the kernel", next)?;
    newest(&folder.join("package/boot"))
        .ok_or_else(|| Error::new(Class::Missing, format!("{package} holds no kernel")).next(next))
}

/// The package that holds the newest kernel: the one that [`PACKAGE`] in its newest version depends on.
fn package() -> Result<String> {
    let ask = |words: &[&str]| -> Result<String> {
        let output = process::collect(Command::new("apt-cache").args(words))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let version =
        ask(&["madison", PACKAGE])?.lines().next().and_then(|line| line.split('|').nth(1).map(str::to_owned));
    let shown = match version {
        Some(version) => ask(&["show", &format!("{PACKAGE}={}", version.trim())])?,
        None => String::new(),
    };
    dependency(&shown).ok_or_else(|| {
        Error::new(Class::Missing, format!("apt offers no {PACKAGE}"))
            .next("run `apt-get update`, or pass a kernel with --kernel")
    })
}

/// The first package of `Depends:`.
fn dependency(shown: &str) -> Option<String> {
    let line = shown.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    line.split([' ', ',']).next().filter(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn newest(boot: &Path) -> Option<PathBuf> {
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    files(boot).into_iter().rfind(is_kernel)
}

#[cfg(test)]
mod tests {
    use super::{Heard, dependency};

    #[test]
    fn lines_become_figures() {
        let mut heard = Heard::default();
        for line in [
            "[    1.5] Run /init as init process",
            "peer-system Linux 6.12.95\r",
            "peer sys.null 100 200 338040 338041 40543310",
            "peer ipc.rt/words=8,with=pipe 20 200 1 2 3",
            "peer-done",
        ] {
            heard.note(line);
        }
        assert!(heard.done && heard.error.is_none());
        let file = heard.file("QEMU");
        assert_eq!((file.title().as_str(), file.flaws()), ("Linux 6.12.95", Vec::new()));
        assert_eq!((file.figures[0].name.as_str(), file.figures[0].figure), ("sys.null", 338_041));
        let second = &file.figures[1];
        assert_eq!(
            (second.by.as_str(), second.params.len(), second.params["words"].as_str()),
            ("pipe", 1, "8")
        );
    }

    #[test]
    fn what_went_wrong_is_not_a_figure() {
        for line in
            ["peer-error pipe: Too many open files", "peer sys.null 1 1 1 soon 1", "peer a/b 1 1 1 1 1"]
        {
            let mut heard = Heard::default();
            heard.note(line);
            assert!(heard.error.is_some() && heard.figures.is_empty(), "{line}");
        }
    }

    #[test]
    fn the_package_behind_the_package() {
        let shown =
            "Package: x\nDepends: linux-image-6.12.9+deb12-cloud-amd64 (= 6.12.9-1)\nSection: kernel\n";
        assert_eq!(dependency(shown).as_deref(), Some("linux-image-6.12.9+deb12-cloud-amd64"));
        assert_eq!(dependency("Depends: libc6\n"), None);
        assert_eq!(dependency(""), None);
    }
}
