//! `cargo xtask ab`: two revisions measured in turn, boot by boot, then compared.
//!
//! Each revision is checked out and built with its own tool, so that each brings the harness it was written with, also in the lane that
//! runs inside the tool. Boots go A B B A: what drifts slowly meets both alike. Every boot is a complete run of its own, so an
//! interrupted measurement keeps what is done, and the same command goes on from there. Checkouts and builds go at the end.

use crate::cli::AbArgs;
use crate::compare::side::Side;
use crate::compare::{self, schema::CompareFile};
use crate::error::{Class, Error, Result};
use crate::results::reader::{self, Run};
use crate::{interrupt, process, ui, workspace};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Where the tool is in a folder of build output.
const TOOL: &str = "release/xtask";
/// Boots that say nothing of how long the others take: the first of each side builds its kernel.
const FIRST: usize = 2;
/// The two sides, as they are called.
const NAMES: [&str; 2] = ["A", "B"];

/// One of the two revisions.
#[derive(Debug)]
struct Revision {
    commit: String,
    /// Its checkout, its tool, and what that builds.
    home: PathBuf,
    /// Where its runs are written.
    out: PathBuf,
}

impl Revision {
    fn tree(&self) -> PathBuf {
        self.home.join("tree")
    }

    fn target(&self) -> PathBuf {
        self.home.join("target")
    }

    /// Its complete runs.
    fn runs(&self) -> Vec<PathBuf> {
        complete(&self.out, &self.commit)
    }
}

/// The subcommand.
///
/// # Errors
/// A revision cannot be found, built or measured; the sides cannot be compared; with `--gate` as for `compare`.
pub fn execute(args: &AbArgs) -> Result<()> {
    let commits = [resolve(&args.base)?, resolve(&args.new)?];
    let folder = folder(&commits, args);
    let home = |commit: &str| Ok(workspace::output("ab")?.join(commit.get(..12).unwrap_or(commit)));
    let side = |commit: &String, name| {
        home(commit).map(|home| Revision { commit: commit.clone(), home, out: folder.join(name) })
    };
    let sides = [side(&commits[0], "a")?, side(&commits[1], "b")?];
    let wanted = usize::try_from(args.boots).unwrap_or(usize::MAX);
    let done = measure(&sides, wanted, args);
    if let Err(error) = done {
        let counts = sides.each_ref().map(|side| side.runs().len());
        ui::aside(&format!(
            "ab: {} and {} of {wanted} boots are kept in {}; the same command goes on from there",
            counts[0],
            counts[1],
            folder.display()
        ));
        return Err(error);
    }
    if !args.keep {
        sides.iter().try_for_each(remove)?;
    }
    let found = compared(&sides)?;
    compare::show(&args.output, &found)?;
    if commits[0] == commits[1] {
        ui::aside("ab: both sides are one build: every difference found is a false alarm");
    }
    ui::aside(&format!("ab: the runs are in {}", folder.display()));
    if args.output.gate { compare::gate(&found) } else { Ok(()) }
}

/// The runs of these two commits with these flags; other flags must not go on from there.
fn folder(commits: &[String; 2], args: &AbArgs) -> PathBuf {
    let short = |commit: &str| commit.get(..12).unwrap_or(commit).to_owned();
    let flags: Vec<String> = args.bench.iter().map(|flag| word(flag)).collect();
    let name = format!("{}-{}-{}", short(&commits[0]), short(&commits[1]), flags.join("_"));
    workspace::root().join("results/ab").join(name.trim_end_matches('-'))
}

/// A flag as part of a file name.
fn word(flag: &str) -> String {
    flag.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | ',' | '=') { c } else { '-' })
        .collect()
}

/// The commit a revision means.
fn resolve(revision: &str) -> Result<String> {
    let mut command = git();
    command.args(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")]);
    let output = process::collect(&mut command)?;
    if !output.status.success() {
        return Err(Error::new(Class::Usage, format!("git knows no commit `{revision}`"))
            .next("name a commit, a tag or a branch"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(workspace::root());
    command
}

/// Checks a commit out beside this tree, unless it is there, and builds its tool.
fn prepare(revision: &Revision) -> Result<()> {
    let (commit, tree) = (&revision.commit, revision.tree());
    if !tree.join("Cargo.toml").exists() {
        ui::aside(&format!("ab: checking {commit} out"));
        let mut add = git();
        add.args(["worktree", "add", "--force", "--detach"]).arg(&tree).arg(commit);
        process::succeed(
            &mut add,
            Class::Io,
            "git worktree add",
            "run `git worktree prune`, and start again",
        )?;
    }
    ui::aside(&format!("ab: building {commit}"));
    // A folder of its own: Cargo names what it builds of a workspace by the place inside that, so that in a common one it takes what an
    // other checkout has left there for fresh.
    let mut build = workspace::cargo();
    build.current_dir(&tree).env("CARGO_TARGET_DIR", revision.target());
    build.args(["build", "--quiet", "--release", "--package", "xtask"]);
    process::succeed(&mut build, Class::BuildFailed, "building the tool", "name a revision that builds")?;
    Ok(())
}

/// Removes the checkout of a revision and what was built of it.
fn remove(revision: &Revision) -> Result<()> {
    let (tree, home) = (revision.tree(), &revision.home);
    if tree.exists() {
        let mut command = git();
        command.args(["worktree", "remove", "--force"]).arg(&tree);
        let next = "remove it yourself, and run `git worktree prune`";
        process::succeed(&mut command, Class::Io, "git worktree remove", next)?;
    }
    match std::fs::remove_dir_all(home) {
        // Both sides may be of one commit.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&error, "remove", home)),
        _ => Ok(()),
    }
}

/// Boots both in turn until each has as many as wanted.
fn measure(sides: &[Revision; 2], wanted: usize, args: &AbArgs) -> Result<()> {
    let counts = || sides.each_ref().map(|side| side.runs().len());
    if next(counts(), wanted).is_none() {
        return Ok(());
    }
    sides.iter().try_for_each(prepare)?;
    let total = 2 * wanted;
    let live = ui::Progress::start("", u64::try_from(total).ok());
    let done: usize = counts().iter().map(|&count| count.min(wanted)).sum();
    (0..done).for_each(|_| live.step());
    let (mut began, mut took) = (Instant::now(), 0);
    loop {
        interrupt::check()?;
        let counts = counts();
        let Some(side) = next(counts, wanted) else { return Ok(()) };
        let left = total.saturating_sub(counts.iter().map(|&count| count.min(wanted)).sum());
        let name = format!("ab: {}, boot {} of {wanted}", NAMES[side], counts[side] + 1);
        live.say(&format!("{name}{}", remaining(began.elapsed(), took, left)));
        let warning = boot(&sides[side], args, &mut |line| live.note(&format!("{name}: {line}")))?;
        if let Some(warning) = warning {
            live.aside(&format!("warning: {}, boot {}: {warning}", NAMES[side], counts[side] + 1));
        }
        if sides[side].runs().len() == counts[side] {
            let what =
                format!("a boot of {} ended without a complete run of {}", NAMES[side], sides[side].commit);
            return Err(Error::new(Class::BadRun, what)
                .next(format!("read the newest run in {}", sides[side].out.display())));
        }
        live.step();
        took += 1;
        if took == FIRST {
            began = Instant::now();
        }
    }
}

/// How long the boots that are left take if they take as long as those since the [`FIRST`].
fn remaining(elapsed: Duration, took: usize, left: usize) -> String {
    match (u32::try_from(took.saturating_sub(FIRST)), u32::try_from(left)) {
        (Ok(took @ 1..), Ok(left)) => format!(", about {} left", ui::duration(elapsed * left / took)),
        _ => String::new(),
    }
}

/// Whose turn it is: A B B A A B B A, as far as what is there allows. `None` when both have enough.
fn next(counts: [usize; 2], wanted: usize) -> Option<usize> {
    if counts.iter().all(|&count| count >= wanted) {
        return None;
    }
    match counts[0].cmp(&counts[1]) {
        std::cmp::Ordering::Less => Some(0),
        std::cmp::Ordering::Greater => Some(1),
        // A new pair, in the other order than the last.
        std::cmp::Ordering::Equal => Some(counts[0] % 2),
    }
}

/// One boot of a revision; `heard` gets what its tool says. A failed row has its exit code and its complete run, which the comparison
/// shows: what is wrong is answered, to be told at once.
fn boot(revision: &Revision, args: &AbArgs, heard: &mut dyn FnMut(&str)) -> Result<Option<String>> {
    let mut command = Command::new(revision.target().join(TOOL));
    command.arg("bench").args(&args.bench).args(["--boots", "1", "--out"]).arg(&revision.out);
    command.env("CARGO_TARGET_DIR", revision.target());
    let output = process::follow(&mut command, heard)?;
    let code = output.status.code();
    if code == Some(0) {
        return Ok(None);
    }
    let text = said(&output);
    let stopped = [Class::Usage, Class::Missing, Class::BuildFailed, Class::NothingMatched];
    if stopped.iter().any(|class| code == Some(i32::from(class.code()))) {
        let what = format!("`xtask bench` of {} says:\n{text}", revision.commit);
        return Err(Error::new(Class::Usage, what).next("name flags that both revisions know"));
    }
    Ok(Some(text))
}

/// The complaint of a tool.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// The complete runs of a commit below a folder.
fn complete(out: &Path, commit: &str) -> Vec<PathBuf> {
    let good = |run: Run| run.is_complete() && run.env.git.commit.as_deref() == Some(commit);
    let mut runs = reader::list(out);
    runs.retain(|dir| Run::open(dir).is_ok_and(good));
    runs
}

fn compared(sides: &[Revision; 2]) -> Result<CompareFile> {
    let [base, new] = sides.each_ref().map(|side| Side::read(&side.runs()));
    compare::runs(base?, &new?)
}

#[cfg(test)]
mod tests {
    use super::{complete, next, remaining, resolve, word};
    use crate::error::Class;
    use crate::report;
    use crate::results::disk::FileSystem;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::RunWriter;
    use std::time::Duration;

    #[test]
    fn boots_go_abba_wherever_they_were_interrupted() {
        let mut counts = [0, 0];
        let mut order = String::new();
        while let Some(side) = next(counts, 4) {
            order.push(['A', 'B'][side]);
            counts[side] += 1;
            assert!(counts[0].abs_diff(counts[1]) <= 1);
        }
        assert_eq!((order.as_str(), counts), ("ABBAABBA", [4, 4]));
        assert_eq!(next([3, 5], 4), Some(0));
        assert_eq!(next([5, 5], 4), None);
    }

    /// Planted: runs of other commits are counted, too.
    #[test]
    fn only_complete_runs_of_the_commit_count_as_boots() {
        let dir = TempDir::new("ab");
        let start = |id, commit: &str| {
            let mut env = testing::env_file();
            env.git.commit = Some(commit.to_owned());
            RunWriter::create(FileSystem, dir.path(), testing::run_file(id), env).unwrap()
        };
        for (id, commit) in [("whole", "1234"), ("another", "5678")] {
            let mut whole = start(id, commit);
            whole.case(testing::finished("a.b/x=1")).unwrap();
            whole.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
        }
        start("interrupted", "1234").case(testing::finished("a.b/x=1")).unwrap();
        let runs = complete(dir.path(), "1234");
        assert_eq!(runs.len(), 1);
        assert!(runs[0].ends_with("whole"));
    }

    #[test]
    fn boots_that_build_kernels_are_no_measure_of_the_others() {
        let minute = Duration::from_secs(60);
        assert_eq!(remaining(minute, 2, 14), "");
        assert_eq!(remaining(minute, 4, 12), ", about 6m left");
    }

    #[test]
    fn revisions_are_commits() {
        assert_eq!(resolve("no-such-revision").unwrap_err().class(), Class::Usage);
        assert_eq!(resolve("--help").unwrap_err().class(), Class::Usage);
        assert_eq!(word("--lane"), "--lane");
        assert_eq!(word("../x y"), "..-x-y");
    }
}
