//! Limine as it is pinned: one commit of its repository, downloaded once and checked at every use.
//!
//! The id of the commit says what git must deliver. The SHA-256 of each file that is used says it again, independent of git's SHA-1, and is
//! all that later uses need: neither git nor a network. A download has a folder of its own until it is whole and right; only then it is
//! renamed to where the next image looks.

use crate::disk_image::{BIOS, NEXT, TOOL_SOURCE, UEFI};
use crate::error::{Class, Error, Result};
use crate::ui::Progress;
use crate::{process, ui};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A commit of a repository, and what its files must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin<'a> {
    url: &'a str,
    /// What the commit is called. Nothing is looked up by it: a tag can be moved.
    tag: &'a str,
    /// All 40 digits of the commit.
    commit: &'a str,
    /// The files that are used, each with its SHA-256.
    files: &'a [(&'a str, &'a str)],
}

/// Whether something may be downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Allowed,
    /// And what forbids it.
    Refused(&'static str),
}

/// Limine 9: it knows base revision 3, which the kernel asks for. Commit and sums are those that the build scripts of Vinix pin.
pub(super) const LIMINE: Pin<'_> = Pin {
    url: "https://github.com/limine-bootloader/limine.git",
    tag: "v9.6.7-binary",
    commit: "ee5d29cd0a8034612dcd1df3f00052480db785c5",
    files: &[
        (UEFI, "c1d6c34cf827e0c5cb0f3546d2db8568dd29aae26833a6332db5532b823503c3"),
        (BIOS, "39f4619ae75e31432aea0ddd14ad3206f7c5b2b637e879bec090fc8bb546f309"),
        (TOOL_SOURCE, "e015228283ad9a373b88041a18f8714eba109f4f08b2f3a39d7bf3a8d12de32f"),
        // The boot sector and the second stage, which the program includes.
        ("limine-bios-hdd.h", "21303b2f510e50dffec4fd2fb3a3e4acf889db8cf48c2ae6882b0a2b173e2e10"),
    ],
};

const GIT: &str = "git";
/// A few megabytes take longer only over a network that does not answer.
const LIMIT: Duration = Duration::from_secs(600);
/// Variables that would lead git to another repository: a hook that runs us has them set.
const ELSEWHERE: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_SHALLOW_FILE",
    "GIT_NAMESPACE",
];

/// A folder below `home` with the pinned files: the one that is there, if it is right, else a new one.
///
/// # Errors
/// [`Class::Missing`]: refused, or the download failed or is not what is pinned. [`Class::Timeout`], [`Class::DiskFull`],
/// [`Class::Io`], [`Class::Interrupted`].
pub(super) fn folder(pin: &Pin<'_>, home: &Path, network: Network) -> Result<PathBuf> {
    let folder = home.join(pin.tag);
    let wrong = folder.exists().then(|| wrong(pin, &folder));
    if wrong == Some(None) {
        return Ok(folder);
    }
    let wrong =
        wrong.flatten().map(|wrong| format!("{} is not as it was downloaded: {wrong}", folder.display()));
    if let Network::Refused(by) = network {
        let what = wrong.unwrap_or_else(|| format!("Limine {} is not in {}", pin.tag, home.display()));
        return Err(Error::new(Class::Missing, format!("{what}, and {by} forbids to download it"))
            .next(format!("allow it, or {NEXT}")));
    }
    if let Some(wrong) = wrong {
        ui::line(&format!("image: {wrong}"));
    }
    download(GIT, pin, home)?;
    Ok(folder)
}

/// Downloads into a folder of its own, and gives it its name once it is right. Whatever fails, nothing of it is kept.
fn download(git: &str, pin: &Pin<'_>, home: &Path) -> Result<()> {
    let (partial, folder) = (home.join("partial"), home.join(pin.tag));
    ui::line(&format!(
        "image: downloading Limine {} (a few megabytes) from {} to {}",
        pin.tag,
        pin.url,
        folder.display()
    ));
    // Of a download that was killed.
    remove(&partial)?;
    let done = fetch(git, pin, &partial).and_then(|()| {
        remove(&folder)?;
        fs::rename(&partial, &folder).map_err(|error| Error::io(&error, "rename", &partial))
    });
    if done.is_err() {
        // The error that is reported is the one that came first.
        let _ = remove(&partial);
    }
    done
}

/// The pinned files in `into`, checked.
fn fetch(program: &str, pin: &Pin<'_>, into: &Path) -> Result<()> {
    fs::create_dir_all(into).map_err(|error| Error::io(&error, "create", into))?;
    let progress = Progress::start("", None);
    progress.note("downloading Limine");
    ask(git(program, into).args(["init", "--quiet", "--template="]), pin)?;
    ask(git(program, into).args(["fetch", "--quiet", "--no-tags", "--depth=1", pin.url, pin.commit]), pin)?;
    ask(git(program, into).args(["checkout", "--quiet", "--detach", "FETCH_HEAD"]), pin)?;
    let head = ask(git(program, into).args(["rev-parse", "HEAD"]), pin)?;
    drop(progress);
    let unlike = |what: String| {
        Error::new(
            Class::Missing,
            format!("what came from {} is not what is pinned, and was removed: {what}", pin.url),
        )
        .next(format!("do not use it; {NEXT}"))
    };
    if head.trim() != pin.commit {
        return Err(unlike(format!("the commit is {}, pinned is {}", head.trim(), pin.commit)));
    }
    remove(&into.join(".git"))?;
    wrong(pin, into).map_or(Ok(()), |wrong| Err(unlike(wrong)))
}

/// git in `repository` and nowhere else, with no hook, nobody to ask for a password, files byte by byte, and messages that [`Cause`] knows.
fn git(program: &str, repository: &Path) -> Command {
    let mut command = Command::new(program);
    for variable in ELSEWHERE {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true");
    command.args([
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.autocrlf=false",
        "-c",
        "advice.detachedHead=false",
    ]);
    command.arg("-C").arg(repository);
    command
}

/// What git says, or why it could not.
fn ask(command: &mut Command, pin: &Pin<'_>) -> Result<String> {
    let output = process::collect_within(command, LIMIT).map_err(|error| match error.class() {
        Class::Missing => error.next(format!("install git, or {NEXT}")),
        Class::Timeout => error.within(pin.url).next(Cause::Unreachable.next()),
        _ => error,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let cause = Cause::of(&message);
    Err(Error::new(cause.class(), format!("{}\n{message}", cause.describe(pin))).next(cause.next()))
}

/// Why a download fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The repository is there, the commit is not.
    NoCommit,
    /// Somebody answers, but has no such repository for everybody.
    NoRepository,
    NoSpace,
    /// Nobody answers, or anything else.
    Unreachable,
}

impl Cause {
    /// Of a message of git, or of GitHub, which asks for a password where there is no repository.
    fn of(message: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if has(&["not our ref", "unadvertised object", "couldn't find remote ref"]) {
            Self::NoCommit
        } else if has(&[
            "' not found",
            "not appear to be a git",
            "could not read Username",
            "Authentication failed",
        ]) {
            Self::NoRepository
        } else if has(&["No space left on device", "Disk quota exceeded"]) {
            Self::NoSpace
        } else {
            Self::Unreachable
        }
    }

    fn class(self) -> Class {
        if self == Self::NoSpace { Class::DiskFull } else { Class::Missing }
    }

    fn describe(self, pin: &Pin<'_>) -> String {
        let Pin { url, tag, commit, .. } = pin;
        match self {
            Self::NoCommit => {
                format!("{url} has no commit {commit} (any more), which {tag} was when it was pinned")
            }
            Self::NoRepository => format!("there is no repository at {url} (any more)"),
            Self::NoSpace => format!("Limine {tag} does not fit onto the disk"),
            Self::Unreachable => format!("cannot download Limine {tag} from {url}"),
        }
    }

    fn next(self) -> String {
        match self {
            Self::NoCommit | Self::NoRepository => NEXT.to_owned(),
            Self::NoSpace => "free some space, and start again".to_owned(),
            Self::Unreachable => format!("check the network and start again; without a network, {NEXT}"),
        }
    }
}

/// What is wrong with the files in `folder`, if anything is.
fn wrong(pin: &Pin<'_>, folder: &Path) -> Option<String> {
    pin.files.iter().find_map(|&(name, pinned)| match fs::read(folder.join(name)) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(content) => {
            let sum = sum(&content);
            (sum != pinned).then(|| format!("the SHA-256 of {name} is {sum}, pinned is {pinned}"))
        }
    })
}

/// The SHA-256, in hexadecimal digits.
fn sum(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Removes a folder that may be there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&error, "remove", folder)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "pinned_tests.rs"]
mod tests;
