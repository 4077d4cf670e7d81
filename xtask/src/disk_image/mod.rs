//! `cargo xtask image`: a disk image that boots Nearfield on hardware, from BIOS and from UEFI, through the official Limine.
//!
//! One partition of an MBR disk is the EFI system partition and holds everything ([`layout`]); the gap before it takes Limine's second stage
//! for BIOS. An MBR and not a GPT, because current versions of Limine no longer install themselves into a GPT without a partition of their own.
//! Limine's binaries come from a folder that is named, else from the distribution, else from a pinned download ([`pinned`]).

mod layout;
mod pinned;

use crate::cli::ImageArgs;
use crate::error::{Class, Error, Result};
use crate::image::{self, Flavour};
use crate::programs::{self, Program};
use crate::setup::{self, Need, packages};
use crate::{process, ui, workspace};
use abi::boot::Params;
use layout::File;
use pinned::{LIMINE, Network};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions put Limine's binaries.
const PLACES: &[&str] = &["/usr/share/limine", "/usr/local/share/limine", "/opt/homebrew/share/limine"];
/// What UEFI starts.
const UEFI: &str = "BOOTX64.EFI";
/// What Limine's second stage looks for on BIOS.
const BIOS: &str = "limine-bios.sys";
/// What no image can be without.
const NEEDED: [&str; 2] = [UEFI, BIOS];
/// Limine's program that writes the boot sector, and its source, which comes with the binaries.
const TOOL: &str = "limine";
const TOOL_SOURCE: &str = "limine.c";
/// The ways to a Limine that need no download by us.
const NEXT: &str = "install the package `limine`, or name a folder with --limine: a clone of a -binary branch of Limine has everything";

/// The subcommand.
///
/// # Errors
/// [`Class::Missing`]: Limine's binaries, and they could not be downloaded; or whatever stops the build.
pub fn execute(args: &ImageArgs) -> Result<()> {
    let line = args.words.join(" ");
    if let Err(bad) = Params::parse(&line) {
        return Err(Error::new(Class::Usage, format!("the kernel does not know the word `{}`", bad.0))
            .next("see the table in abi/src/boot.rs"));
    }
    let limine = limine(args.limine.as_deref(), PLACES, || {
        pinned::folder(&LIMINE, &workspace::output("limine")?, network(args))
    })?;
    ui::line(&format!("image: Limine is that of {}", limine.display()));
    setup::ensure(&[Need::GuestTarget])?;
    let kernel = image::build(Flavour::Plain)?.kernel;
    let bytes = layout::build(&files(&kernel, &programs::build()?, &limine, &line)?)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => workspace::output("disk")?.join("nearfield.img"),
    };
    let size = bytes.len() >> 20;
    fs::write(&path, bytes).map_err(|error| Error::io(&error, "write", &path))?;
    let firmware = if install_for_bios(&limine, &path)? {
        "BIOS and UEFI"
    } else {
        "UEFI only: for BIOS the program `limine` or its source is missing"
    };
    let kernel = match line.as_str() {
        "" => "the kernel will only idle; words after `--` make it do more, as `-- mode=test`".to_owned(),
        line => format!("the kernel's command line is `{line}`"),
    };
    let path = path.display();
    ui::line(&format!("image: {path} ({size} MiB) boots from {firmware}"));
    ui::line(&format!("image: {kernel}"));
    ui::line(&format!(
        "image: `dd if={path} of=/dev/DISK bs=4M conv=fsync` writes it over all that is on a disk"
    ));
    Ok(())
}

fn network(args: &ImageArgs) -> Network {
    if args.offline {
        Network::Refused("--offline")
    } else if packages::refused() {
        Network::Refused(packages::INSTALL_VARIABLE)
    } else {
        Network::Allowed
    }
}

/// The folder of Limine's binaries: the one that is named and no other; else one of `places`; else what `download` gives.
fn limine(
    named: Option<&Path>,
    places: &[&str],
    download: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    let whole = |folder: &PathBuf| NEEDED.iter().all(|name| folder.join(name).is_file());
    let Some(folder) = named else {
        if let Some(folder) = places.iter().map(PathBuf::from).find(whole) {
            return Ok(folder);
        }
        ui::line(&format!("image: no Limine is installed in {}", places.join(" or ")));
        return download();
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(folder.to_owned());
    }
    Err(Error::new(Class::Missing, format!("there is no {} in {}", missing.join(" and no "), folder.display())).next(
        "name a clone of a -binary branch of Limine, which has all, or leave --limine out to take the distribution's or a download",
    ))
}

fn files(kernel: &Path, programs: &[Program], limine: &Path, line: &str) -> Result<Vec<File>> {
    let read = |path: &Path| fs::read(path).map_err(|error| Error::io(&error, "read", path));
    let file = |path: &str, content: Vec<u8>| File { path: path.to_owned(), content };
    let mut files = vec![
        file("EFI/BOOT/BOOTX64.EFI", read(&limine.join(UEFI))?),
        file("limine-bios.sys", read(&limine.join(BIOS))?),
        file("limine.conf", configuration(programs, line).into_bytes()),
        file("boot/kernel", read(kernel)?),
    ];
    files.extend(programs.iter().map(|program| file(&program.member, program.content.clone())));
    Ok(files)
}

/// `limine.conf` (Limine's CONFIG.md): one entry, started at once, its messages on the serial port too, at the kernel's speed: on BIOS
/// Limine's own is 9600 baud. `kernel_path` is understood by Limine 8, which does not know `path`, and since.
fn configuration(programs: &[Program], line: &str) -> String {
    let mut text = String::from(
        "timeout: 0\nserial: yes\nserial_baudrate: 115200\n\n/Nearfield\n    protocol: limine\n    kernel_path: boot():/boot/kernel\n",
    );
    text.push_str(&format!("    cmdline: {line}\n"));
    for program in programs {
        text.push_str(&format!("    module_path: boot():/{}\n", program.member));
    }
    text
}

/// Lets Limine write its boot sector and second stage; whether it could.
fn install_for_bios(limine: &Path, image: &Path) -> Result<bool> {
    let tool = match (limine.join(TOOL), limine.join(TOOL_SOURCE)) {
        (tool, _) if tool.is_file() => tool,
        (_, source) if source.is_file() => compile(&source)?,
        _ if setup::packages::in_path(TOOL) => PathBuf::from(TOOL),
        _ => return Ok(false),
    };
    let mut command = Command::new(tool);
    command.arg("bios-install").arg(image);
    process::succeed(
        &mut command,
        Class::BuildFailed,
        "installing Limine for BIOS",
        "read Limine's message",
    )?;
    Ok(true)
}

fn compile(source: &Path) -> Result<PathBuf> {
    let tool = workspace::output("disk")?.join(TOOL);
    let mut command = Command::new("cc");
    command.args(["-O2", "-std=c99", "-o"]).arg(&tool).arg(source);
    process::succeed(&mut command, Class::BuildFailed, "building Limine's program", "install a C compiler")?;
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::{
        BIOS, LIMINE, Network, TOOL, UEFI, configuration, files, install_for_bios, layout, limine, pinned,
    };
    use crate::error::Class;
    use crate::programs::Program;
    use crate::results::testing::TempDir;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn programs() -> Vec<Program> {
        ["user/bench", "user/a-program-with-a-long-name"]
            .map(|member| Program { member: member.to_owned(), content: vec![7; 70_000] })
            .to_vec()
    }

    #[test]
    fn the_configuration_names_every_module() {
        let text = configuration(&programs(), "mode=bench lane=hw");
        assert!(text.contains("\n    cmdline: mode=bench lane=hw\n"), "{text}");
        assert!(text.ends_with(
            "module_path: boot():/user/bench\n    module_path: boot():/user/a-program-with-a-long-name\n"
        ));
    }

    /// Every path that the configuration names is a file of the image.
    #[test]
    fn the_image_holds_what_its_configuration_names() {
        let dir = TempDir::new("image");
        for name in [UEFI, BIOS, "kernel"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let files = files(&dir.path().join("kernel"), &programs(), dir.path(), "mode=idle").unwrap();
        let image = layout::build(&files).unwrap();
        let text = configuration(&programs(), "mode=idle");
        let named = text.lines().filter_map(|line| line.split_once("boot():/"));
        let mut count = 0;
        for (_, path) in
            named.chain([("", "EFI/BOOT/BOOTX64.EFI"), ("", "limine-bios.sys"), ("", "limine.conf")])
        {
            assert!(layout::read(&image, path).is_some(), "{path}");
            count += 1;
        }
        assert_eq!(count, 6);
        assert_eq!(layout::read(&image, "EFI/BOOT/BOOTX64.EFI").unwrap(), UEFI.as_bytes());
    }

    /// A folder below `dir` with what an image needs of Limine.
    fn stand_in(dir: &Path, name: &str) -> PathBuf {
        let folder = dir.join(name);
        fs::create_dir(&folder).unwrap();
        for name in [UEFI, BIOS] {
            fs::write(folder.join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn without_limine_there_is_no_image() {
        let dir = TempDir::new("no-limine");
        let refuse = || pinned::folder(&LIMINE, dir.path(), Network::Refused("--offline"));
        for (named, says) in [
            (None, "--offline forbids"),
            (Some(dir.path()), "there is no BOOTX64.EFI and no limine-bios.sys in"),
        ] {
            let error = limine(named, &["/nonexistent"], refuse).unwrap_err();
            assert_eq!(error.class(), Class::Missing);
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.to_string().contains("--limine"), "{error}");
        }
    }

    #[test]
    fn limine_is_that_named_else_of_the_distribution_else_downloaded() {
        let dir = TempDir::new("limine");
        let [named, installed, pinned] =
            ["named", "installed", "pinned"].map(|name| stand_in(dir.path(), name));
        let places = ["/nonexistent", installed.to_str().unwrap()];
        let found = |named, places: &[&str]| limine(named, places, || Ok(pinned.clone())).unwrap();
        assert_eq!(found(Some(&named), &places), named);
        assert_eq!(found(None, &places), installed);
        assert_eq!(found(None, &places[..1]), pinned);
        fs::remove_file(named.join(BIOS)).unwrap();
        fs::remove_file(installed.join(UEFI)).unwrap();
        assert!(limine(Some(&named), &places, || Ok(pinned.clone())).is_err());
        assert_eq!(found(None, &places), pinned);
    }

    /// A script in the place of Limine's program: it is given the image, and its failure is ours.
    #[test]
    fn limine_installs_itself_or_says_why_not() {
        let dir = TempDir::new("bios");
        let image = dir.path().join("x.img");
        fs::write(&image, "image").unwrap();
        let script = |text: &str| {
            // Linked and not written: executing a file just written fails while another thread's child holds it open.
            let tool = dir.path().join(TOOL);
            let _ = fs::remove_file(&tool);
            std::os::unix::fs::symlink(text, &tool).unwrap();
        };
        script("/bin/true");
        assert!(install_for_bios(dir.path(), &image).unwrap());
        script("/bin/false");
        assert_eq!(install_for_bios(dir.path(), &image).unwrap_err().class(), Class::BuildFailed);
        assert!(Path::new("/bin/true").exists());
    }
}
