//! What a run notes about its surroundings: source state, compiler, host; and the names made from them.

use crate::results::schema::{Git, Host};
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// The state of the source tree at `dir`; empty outside a git work tree or without git.
#[must_use]
pub fn git(dir: &Path) -> Git {
    let ask = |args: &[&str]| output(Command::new("git").arg("-C").arg(dir).args(args));
    let Some(commit) = ask(&["rev-parse", "HEAD"]) else { return Git::default() };
    Git {
        commit: Some(commit),
        dirty: ask(&["status", "--porcelain", "--untracked-files=normal"]).map(|changes| !changes.is_empty()),
        describe: ask(&["describe", "--always", "--tags", "--dirty"]),
    }
}

/// The first line of `rustc --version`, by the compiler that built this program where it is known.
#[must_use]
pub fn rustc() -> String {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    output(Command::new(program).arg("--version")).unwrap_or_else(|| "unknown".to_owned())
}

/// The machine this program runs on.
#[must_use]
pub fn host() -> Host {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let kernel = match (read("/proc/sys/kernel/ostype"), read("/proc/sys/kernel/osrelease")) {
        (Some(name), Some(release)) => format!("{name} {release}"),
        _ => std::env::consts::OS.to_owned(),
    };
    Host {
        cpu: read("/proc/cpuinfo").as_deref().and_then(cpu_model).unwrap_or_else(|| "unknown".to_owned()),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        nodes: host_nodes(),
        kernel,
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }
}

fn host_nodes() -> Option<u32> {
    let entries = fs::read_dir("/sys/devices/system/node").ok()?;
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|id| id.parse::<u32>().is_ok());
    let count =
        entries.filter_map(Result::ok).filter(|entry| is_node(&entry.file_name().to_string_lossy())).count();
    u32::try_from(count).ok()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The slug of an emulated machine: `qemu-q35-8c2n`.
#[must_use]
pub fn emulated_machine(cores: u32, nodes: u32) -> String {
    format!("qemu-q35-{cores}c{nodes}n")
}

/// The slug of a real machine: CPU model, cores and nodes.
#[must_use]
pub fn real_machine(cpu: &str, cores: u32, nodes: u32) -> String {
    format!("{}-{cores}c{nodes}n", slug(cpu))
}

/// Lower case, words joined by `-`; trademark signs, the word `processor` and the frequency are left out.
fn slug(text: &str) -> String {
    let text = text.to_lowercase().replace("(r)", " ").replace("(tm)", " ").replace('@', " ");
    let noise = |word: &str| word.is_empty() || matches!(word, "cpu" | "processor") || word.ends_with("ghz");
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| !noise(word)).collect();
    let mut slug = words.join("-");
    slug.truncate(40);
    if slug.is_empty() { "unknown".to_owned() } else { slug.trim_end_matches('-').to_owned() }
}

/// A time as RFC 3339 in UTC, to the second.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The name of a run directory: `<UTC>-<sha12>[-dirty]-<id>`. The id tells runs of one second apart.
#[must_use]
pub fn run_id(time: SystemTime, git: &Git) -> String {
    let stamp: String = timestamp(time).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let commit = git.commit.as_deref().map_or("nogit", |commit| commit.get(..12).unwrap_or(commit));
    let dirty = if git.dirty == Some(true) { "-dirty" } else { "" };
    // The standard library seeds this hasher with fresh randomness from the operating system.
    let random = RandomState::new().build_hasher().finish() & 0xff_ffff;
    format!("{stamp}-{commit}{dirty}-{random:06x}")
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Git, cpu_model, git, host, real_machine, run_id, rustc, timestamp};
    use crate::results::testing::TempDir;
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    fn in_dir(dir: &Path, args: &[&str]) {
        let status = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(args)
            .output()
            .unwrap();
        assert!(status.status.success(), "{args:?}: {}", String::from_utf8_lossy(&status.stderr));
    }

    #[test]
    fn git_states_clean_dirty_untracked_and_none() {
        let dir = TempDir::new("git");
        assert_eq!(git(dir.path()), Git::default());
        in_dir(dir.path(), &["init", "-q"]);
        fs::write(dir.path().join("a"), "1").unwrap();
        in_dir(dir.path(), &["add", "a"]);
        in_dir(dir.path(), &["commit", "-q", "-m", "one"]);
        let clean = git(dir.path());
        assert_eq!(clean.dirty, Some(false));
        assert_eq!(clean.commit.as_ref().map(String::len), Some(40));
        fs::write(dir.path().join("a"), "2").unwrap();
        assert_eq!(git(dir.path()).dirty, Some(true));
        assert!(git(dir.path()).describe.unwrap().ends_with("-dirty"));
        fs::write(dir.path().join("a"), "1").unwrap();
        assert_eq!(git(dir.path()).dirty, Some(false));
        fs::write(dir.path().join("b"), "1").unwrap();
        assert_eq!(git(dir.path()).dirty, Some(true));
    }

    #[test]
    fn run_ids_name_time_commit_and_state() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(timestamp(time), "2023-11-14T22:13:20Z");
        let mut state = Git::default();
        assert!(run_id(time, &state).starts_with("20231114T221320Z-nogit-"));
        state.commit = Some("0123456789abcdef0123456789abcdef01234567".to_owned());
        state.dirty = Some(true);
        let id = run_id(time, &state);
        assert!(id.starts_with("20231114T221320Z-0123456789ab-dirty-"), "{id}");
        assert_ne!(id, run_id(time, &state));
    }

    #[test]
    fn machine_slugs_are_short_and_stable() {
        let intel = "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz";
        assert_eq!(real_machine(intel, 112, 2), "intel-xeon-platinum-8480-112c2n");
        assert_eq!(real_machine("AMD EPYC 9B45", 2, 1), "amd-epyc-9b45-2c1n");
        assert_eq!(real_machine("™", 1, 1), "unknown-1c1n");
        assert_eq!(cpu_model("processor : 0\nmodel name\t: Foo 1\n").as_deref(), Some("Foo 1"));
    }

    #[test]
    fn the_host_is_described() {
        assert!(host().threads >= 1);
        assert!(rustc().starts_with("rustc "));
    }
}
