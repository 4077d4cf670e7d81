//! `cargo xtask image`: a disk image that boots Nearfield on hardware, from BIOS and from UEFI, through the official Limine.
//!
//! One partition of an MBR disk is the EFI system partition and holds everything ([`layout`]); the gap before it takes Limine's second stage
//! for BIOS. An MBR and not a GPT, because current versions of Limine no longer install themselves into a GPT without a partition of their own.
//! Limine's binaries come from the distribution or from a folder; nothing is downloaded.

mod layout;

use crate::cli::ImageArgs;
use crate::error::{Class, Error, Result};
use crate::image::{self, Flavour};
use crate::programs::{self, Program};
use crate::setup::{self, Need};
use crate::{process, ui, workspace};
use abi::boot::Params;
use layout::File;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions put Limine's binaries.
const PLACES: &[&str] = &["/usr/share/limine", "/usr/local/share/limine", "/opt/homebrew/share/limine"];
/// What UEFI starts.
const UEFI: &str = "BOOTX64.EFI";
/// What Limine's second stage looks for on BIOS.
const BIOS: &str = "limine-bios.sys";
/// Limine's program that writes the boot sector, and its source, which comes with the binaries.
const TOOL: &str = "limine";
const TOOL_SOURCE: &str = "limine.c";
const NEXT: &str = "install the package `limine`, or name a folder with --limine: a clone of a -binary branch of Limine has everything";

/// The subcommand.
///
/// # Errors
/// [`Class::Missing`]: Limine's binaries; or whatever stops the build.
pub fn execute(args: &ImageArgs) -> Result<()> {
    let line = args.words.join(" ");
    if let Err(bad) = Params::parse(&line) {
        return Err(Error::new(Class::Usage, format!("the kernel does not know the word `{}`", bad.0))
            .next("see the table in abi/src/boot.rs"));
    }
    let limine = limine(args.limine.as_deref())?;
    setup::ensure(&[Need::GuestTarget])?;
    let kernel = image::build(Flavour::Plain)?.kernel;
    let bytes = layout::build(&files(&kernel, &programs::build()?, &limine, &line)?)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => workspace::output("disk")?.join("nearfield.img"),
    };
    fs::write(&path, bytes).map_err(|error| Error::io(&error, "write", &path))?;
    let bios = install_for_bios(&limine, &path)?;
    let how = if bios {
        "BIOS and UEFI"
    } else {
        "UEFI only: there is neither the program nor the source of `limine`"
    };
    ui::line(&format!("image: {} boots from {how}", path.display()));
    ui::line(&format!("image: write it to a disk with `dd if={} of=/dev/DISK bs=4M`", path.display()));
    Ok(())
}

/// The folder of Limine's binaries.
fn limine(named: Option<&Path>) -> Result<PathBuf> {
    let whole = |folder: &Path| [UEFI, BIOS].iter().all(|name| folder.join(name).is_file());
    let folder = match named {
        Some(folder) => whole(folder).then(|| folder.to_owned()),
        None => PLACES.iter().map(PathBuf::from).find(|folder| whole(folder)),
    };
    folder.ok_or_else(|| {
        let place = named.map_or_else(|| PLACES.join(" or "), |folder| folder.display().to_string());
        Error::new(Class::Missing, format!("there is no {UEFI} and {BIOS} in {place}")).next(NEXT)
    })
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

/// `limine.conf` (Limine's CONFIG.md): one entry, started at once, its messages on the serial port too.
fn configuration(programs: &[Program], line: &str) -> String {
    let mut text = String::from(
        "timeout: 0\nserial: yes\n\n/Nearfield\n    protocol: limine\n    path: boot():/boot/kernel\n",
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
    use super::{BIOS, TOOL, UEFI, configuration, files, install_for_bios, layout, limine};
    use crate::error::Class;
    use crate::programs::Program;
    use crate::results::testing::TempDir;
    use std::fs;
    use std::path::Path;

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

    #[test]
    fn without_limine_there_is_no_image() {
        let dir = TempDir::new("no-limine");
        let error = limine(Some(dir.path())).unwrap_err();
        assert_eq!(error.class(), Class::Missing);
        assert!(error.to_string().contains("--limine"));
        for name in [UEFI, BIOS] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(limine(Some(dir.path())).unwrap(), dir.path());
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
