//! What runs where nobody looks: the commands of continuous integration and of the workflow on GitHub are ones that `cargo xtask` has, both gate
//! the same rows, and `zizmor`, if it is here, finds neither an error nor a hole in the workflow.

use crate::cli::Cli;
use crate::setup::readers;
use crate::workspace;
use clap::Parser;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output};

const WORKFLOW: &str = ".github/workflows/performance.yml";
const SCRIPT: &str = ".ci/run";

/// The words of each `cargo xtask` command of a file, the variables of its shell as they are.
fn commands(path: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(workspace::root().join(path)).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let ours = lines.filter_map(|line| line.split_once("cargo xtask ").map(|(_, words)| words));
    let end = |word: &&str| !matches!(*word, "||" | "&&" | "|" | ";" | ">" | ">>");
    let split = |words: &str| -> Vec<String> {
        words.split_whitespace().take_while(end).map(|word| word.trim_matches('"').to_owned()).collect()
    };
    ours.map(split).collect()
}

/// Planted: `--mem 1GB`, `export --format`.
#[test]
fn every_command_of_continuous_integration_is_understood() {
    for (path, at_least) in [(WORKFLOW, 8), (SCRIPT, 6)] {
        let commands = commands(path);
        assert!(commands.len() >= at_least, "{path}: {commands:?}");
        for words in commands {
            let said = Cli::try_parse_from(std::iter::once("cargo xtask".to_owned()).chain(words.clone()));
            assert!(said.is_ok(), "{path}: {words:?}: {}", said.unwrap_err());
        }
    }
}

/// Planted: a row less in the workflow; another number of boots.
#[test]
fn both_hold_the_same_rows_against_the_baseline() {
    let gated = |path: &str| -> Vec<Vec<String>> {
        let benches = commands(path).into_iter().filter(|words| words.iter().any(|word| word == "--boots"));
        benches.collect()
    };
    let (workflow, script) = (gated(WORKFLOW), gated(SCRIPT));
    assert_eq!(script.len(), 1);
    assert_eq!(workflow, script);
}

fn zizmor(program: &Path, workflow: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(["--offline", "--no-progress", "--quiet", "--format", "plain"]);
    command.arg(workflow).output().unwrap()
}

/// That it would find something is seen too: a title that anybody may choose, run by a shell; a step that is none.
#[test]
fn zizmor_finds_nothing_in_the_workflow() {
    let Some(program) = readers::program("zizmor") else {
        // Past the output that libtest keeps of passed tests: `cargo xtask test` counts these lines.
        let _ = writeln!(
            io::stderr(),
            "skipped: the workflow looked at by zizmor, which is not here; `{}` gets it",
            readers::COMMAND
        );
        return;
    };
    let path = workspace::root().join(WORKFLOW);
    let output = zizmor(&program, &path);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    let good = fs::read_to_string(&path).unwrap();
    let folder = crate::results::testing::TempDir::new("workflow");
    for (name, was, planted) in [
        ("title.yml", "run: rustup show", "run: echo ${{ github.event.pull_request.title }}"),
        ("step.yml", "run: rustup show", "runs: rustup show"),
    ] {
        let bad = good.replace(was, planted);
        assert_ne!(bad, good);
        let path = folder.path().join(name);
        fs::write(&path, bad).unwrap();
        assert!(!zizmor(&program, &path).status.success(), "{name} passed");
    }
}
