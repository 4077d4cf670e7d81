//! What a user does wrong, or a host lacks: one clear message and the exit code of `cargo xtask --help`.
//!
//! QEMU is played by a shell script, so that this needs none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const USAGE: i32 = 2;
const BAD_TOPOLOGY: i32 = 4;
const MISSING: i32 = 5;
const BAD_RUN: i32 = 6;

fn xtask(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).env_remove("CI").env("NEARFIELD_INSTALL", "never");
    command
}

/// Asserts the exit code, and that the message says what to do next; returns the message.
fn refused(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn advised(output: &Output, code: i32) -> String {
    let text = refused(output, code);
    assert!(text.starts_with("error: ") && text.contains("\n  next: "), "{text}");
    text
}

/// A folder of its own for a test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&path).expect("a folder for the test");
    path
}

/// Lets the script that plays QEMU give this version.
fn playing(command: &mut Command, version: &str) -> Output {
    let qemu = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qemu.sh");
    command.env("NEARFIELD_QEMU", qemu).env("PLAYED_VERSION", version).output().expect("xtask runs")
}

#[test]
fn unknown_words_are_usage_errors() {
    for words in
        [&["fly"][..], &["run", "--turbo"], &["bench", "--lane", "hw"], &["test", "--host", "--qemu"]]
    {
        refused(&xtask(words).output().unwrap(), USAGE);
    }
}

#[test]
fn help_lists_every_code_and_examples() {
    let output = xtask(&["--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["Exit codes:", "    0  success", "  130  interrupted", "Examples:", "cargo xtask bench"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn impossible_machines_are_named() {
    let file = folder("impossible").join("nodes.toml");
    fs::write(&file, "[[node]]\ncores = 2\nmem = \"1G\"\n[[node]]\n").unwrap();
    let file = file.to_str().unwrap();
    for words in [
        &["run", "--smp", "1", "--nodes", "2"][..],
        &["run", "--smp", "9999"],
        &["run", "--mem", "1M"],
        &["bench", "--smp", "0"],
        &["run", "--topology", "no/such/file.toml"],
        &["run", "--topology", file],
    ] {
        advised(&xtask(words).output().unwrap(), BAD_TOPOLOGY);
    }
}

#[test]
fn a_word_the_kernel_does_not_know() {
    let text = advised(&xtask(&["run", "--", "mode=fly"]).output().unwrap(), USAGE);
    assert!(text.contains("mode=fly"), "{text}");
}

#[test]
fn a_missing_qemu_is_not_installed_against_the_users_will() {
    let output = xtask(&["run"]).env("NEARFIELD_QEMU", "/nonexistent/qemu").output().unwrap();
    let text = advised(&output, MISSING);
    assert!(text.contains("QEMU") && text.contains("refused"), "{text}");
    let output = xtask(&["setup", "--check"]).env("NEARFIELD_QEMU", "/nonexistent/qemu").output().unwrap();
    advised(&output, MISSING);
}

#[test]
fn something_else_called_qemu() {
    advised(&playing(&mut xtask(&["setup", "--check"]), "Hello"), MISSING);
}

#[test]
fn many_cores_on_an_old_qemu() {
    let mut command = xtask(&["run", "--smp", "288", "--lane", "tcg"]);
    let text = advised(&playing(&mut command, "QEMU emulator version 7.2.19"), BAD_TOPOLOGY);
    assert!(text.contains("QEMU 7.2"), "{text}");
}

#[test]
fn an_unreadable_run() {
    let text = advised(&xtask(&["report", "no/such/run"]).output().unwrap(), BAD_RUN);
    assert!(text.contains("no/such/run"), "{text}");
}
