use super::{Cause, GIT, LIMINE, Network, Pin, download, folder, git, sum};
use crate::disk_image::{BIOS, TOOL_SOURCE, UEFI};
use crate::error::Class;
use crate::results::testing::TempDir;
use std::fs;
use std::path::{Path, PathBuf};

const CONTENT: [(&str, &str); 2] = [(UEFI, "what UEFI starts\n"), (BIOS, "what BIOS starts\r\n")];

/// A bare repository with one commit, and a home for downloads of it.
struct Origin {
    dir: TempDir,
    url: String,
    commit: String,
    sums: [String; 2],
}

impl Origin {
    fn new() -> Self {
        let dir = TempDir::new("pinned");
        let (work, bare) = (dir.path().join("work"), dir.path().join("origin"));
        fs::create_dir(&work).unwrap();
        told(&work, &["init", "--quiet"]);
        for (name, content) in CONTENT {
            fs::write(work.join(name), content).unwrap();
        }
        told(&work, &["add", "."]);
        told(
            &work,
            &["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "one"],
        );
        told(&work, &["tag", "v1"]);
        let url = bare.to_str().unwrap().to_owned();
        told(&work, &["clone", "--quiet", "--bare", ".", &url]);
        let commit = told(&work, &["rev-parse", "HEAD"]).trim().to_owned();
        Self { dir, url, commit, sums: CONTENT.map(|(_, content)| sum(content.as_bytes())) }
    }

    fn home(&self) -> PathBuf {
        let home = self.dir.path().join("home");
        fs::create_dir_all(&home).unwrap();
        home
    }

    /// What `test` sees with the right pin.
    fn with_pin<T>(&self, test: impl FnOnce(Pin<'_>) -> T) -> T {
        let files = [(UEFI, self.sums[0].as_str()), (BIOS, self.sums[1].as_str())];
        test(Pin { url: &self.url, tag: "v1", commit: &self.commit, files: &files })
    }

    /// That a download by this pin fails, and leaves nothing; with what message.
    fn refused(&self, pin: &Pin<'_>) -> String {
        let error = folder(pin, &self.home(), Network::Allowed).unwrap_err();
        assert_eq!(error.class(), Class::Missing, "{error}");
        assert!(error.to_string().contains("--limine"), "{error}");
        assert_eq!(fs::read_dir(self.home()).unwrap().count(), 0, "something was kept");
        error.to_string()
    }
}

fn told(dir: &Path, words: &[&str]) -> String {
    let output = git(GIT, dir).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_pinned_is_downloaded_once() {
    let origin = Origin::new();
    origin.with_pin(|pin| {
        let path = folder(&pin, &origin.home(), Network::Allowed).unwrap();
        for (name, content) in CONTENT {
            assert_eq!(fs::read_to_string(path.join(name)).unwrap(), content);
        }
        let kept: Vec<_> = fs::read_dir(origin.home()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept, [path.as_path()]);
        fs::remove_dir_all(&origin.url).unwrap();
        for network in [Network::Allowed, Network::Refused("--offline")] {
            assert_eq!(folder(&pin, &origin.home(), network).unwrap(), path);
        }
    });
}

/// Planted: the commit that came is not compared; what failed is not removed.
#[test]
fn another_commit_is_refused() {
    let origin = Origin::new();
    let unknown = "0123456789abcdef0123456789abcdef01234567";
    origin.with_pin(|pin| {
        let text = origin.refused(&Pin { commit: unknown, ..pin });
        assert!(text.contains(unknown) && text.contains("has no commit"), "{text}");
        // A name would be whatever it is moved to.
        for name in ["v1", "HEAD"] {
            let text = origin.refused(&Pin { commit: name, ..pin });
            assert!(text.contains(&format!("the commit is {}, pinned is {name}", origin.commit)), "{text}");
        }
    });
}

/// Planted: the sums of what came are not looked at; what failed is not removed.
#[test]
fn another_content_is_refused() {
    let origin = Origin::new();
    origin.with_pin(|pin| {
        for (at, (name, _)) in CONTENT.iter().enumerate() {
            let mut files = pin.files.to_vec();
            let other = sum(b"other");
            files[at].1 = &other;
            let text = origin.refused(&Pin { files: &files, ..pin });
            let says = format!("the SHA-256 of {name} is {}, pinned is {other}", origin.sums[at]);
            assert!(text.contains(&says), "{text}");
        }
        let files = [pin.files, &[(TOOL_SOURCE, "")]].concat();
        let text = origin.refused(&Pin { files: &files, ..pin });
        assert!(text.contains(TOOL_SOURCE), "{text}");
    });
}

/// A download that was killed has left what it had, under the name that it works under.
///
/// Planted: what is there at the start is not removed.
#[test]
fn an_interrupted_download_starts_over() {
    let origin = Origin::new();
    origin.with_pin(|pin| {
        let partial = origin.home().join("partial");
        fs::create_dir_all(partial.join(".git/objects")).unwrap();
        fs::write(partial.join(".git/HEAD"), "ref").unwrap();
        for (name, content) in CONTENT {
            fs::write(partial.join(name), content).unwrap();
        }
        fs::write(partial.join("more"), "").unwrap();
        assert!(folder(&pin, &origin.home(), Network::Refused("--offline")).is_err());
        let path = folder(&pin, &origin.home(), Network::Allowed).unwrap();
        assert!(!partial.exists() && !path.join("more").exists());
    });
}

/// Planted: a folder that is there is taken as it is.
#[test]
fn what_was_altered_is_not_used() {
    let origin = Origin::new();
    origin.with_pin(|pin| {
        let path = folder(&pin, &origin.home(), Network::Allowed).unwrap();
        fs::write(path.join(UEFI), "altered").unwrap();
        let error = folder(&pin, &origin.home(), Network::Refused("--offline")).unwrap_err().to_string();
        assert!(error.contains("not as it was downloaded") && error.contains("--offline"), "{error}");
        folder(&pin, &origin.home(), Network::Allowed).unwrap();
        assert_eq!(fs::read_to_string(path.join(UEFI)).unwrap(), CONTENT[0].1);
        fs::remove_file(path.join(BIOS)).unwrap();
        fs::remove_dir_all(&origin.url).unwrap();
        // What cannot be replaced stays as it is, and is still not used.
        let error = folder(&pin, &origin.home(), Network::Allowed).unwrap_err().to_string();
        assert!(error.contains("there is no repository"), "{error}");
    });
}

#[test]
fn each_cause_has_its_own_message() {
    let origin = Origin::new();
    origin.with_pin(|pin| {
        let text = origin.refused(&Pin { url: "/nonexistent", ..pin });
        assert!(text.contains("there is no repository at /nonexistent"), "{text}");
        // Port 1 of this machine: nobody answers.
        let text = origin.refused(&Pin { url: "git://127.0.0.1:1/x", ..pin });
        assert!(text.contains("check the network"), "{text}");
        let error = download("git-that-nobody-has", &pin, &origin.home()).unwrap_err();
        assert_eq!(error.class(), Class::Missing);
        assert!(error.to_string().contains("next: install git"), "{error}");
    });
}

/// What GitHub and curl say, where this test cannot ask them.
#[test]
fn messages_are_understood() {
    for (message, cause) in [
        ("fatal: remote error: upload-pack: not our ref 0123", Cause::NoCommit),
        (
            "remote: Repository not found.\nfatal: repository 'https://h/x.git/' not found",
            Cause::NoRepository,
        ),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", Cause::NoRepository),
        ("fatal: unable to access 'https://h/': Could not resolve host: h", Cause::Unreachable),
        ("fatal: write error: No space left on device", Cause::NoSpace),
    ] {
        assert_eq!(Cause::of(message), cause, "{message}");
    }
}

/// A hook of another repository, in which we may run, must not see its repository changed.
#[test]
fn git_is_led_to_no_other_repository() {
    let command = git(GIT, Path::new("."));
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        assert!(command.get_envs().any(|(key, value)| key == name && value.is_none()), "{name}");
    }
}

#[test]
fn the_pin_is_whole() {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    assert!(LIMINE.commit.len() == 40 && digits(LIMINE.commit));
    for (name, sum) in LIMINE.files {
        assert!(sum.len() == 64 && digits(sum), "{name}");
    }
    for needed in [UEFI, BIOS, TOOL_SOURCE] {
        assert!(LIMINE.files.iter().any(|(name, _)| *name == needed), "{needed}");
    }
    // FIPS 180-4, the example of one block.
    assert_eq!(sum(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
