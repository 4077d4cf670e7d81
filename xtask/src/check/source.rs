//! The committed text files, split into code and comments.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::workspace;
use std::fs;
use std::process::Command;

/// One line of a source file.
#[derive(Debug)]
pub(super) struct Line {
    /// The line without comments and without the contents of strings.
    pub code: String,
    /// The text of its comment, if it has one.
    pub comment: String,
}

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Path from the top folder, with slashes.
    pub path: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl File {
    /// A file with this content.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut state = State::Code;
        let rust = path.ends_with(".rs");
        let line = |line: &str| {
            if rust {
                split(line, &mut state)
            } else {
                Line { code: line.to_owned(), comment: String::new() }
            }
        };
        Self { path: path.to_owned(), lines: text.lines().map(line).collect() }
    }

    /// Whether it is Rust.
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The top folder it is in; empty for a file at the top.
    pub(super) fn crate_name(&self) -> &str {
        self.path.split_once('/').map_or("", |(folder, _)| folder)
    }
}

/// Every file that is committed or would be, if it is text.
pub(super) fn files() -> Result<Vec<File>> {
    let mut command = Command::new("git");
    command.current_dir(workspace::root()).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let output =
        process::succeed(&mut command, Class::CheckFailed, "git ls-files", "run this in a git checkout")?;
    let names = String::from_utf8(output.stdout)
        .map_err(|_| Error::new(Class::CheckFailed, "a file name is not UTF-8"))?;
    let read = |name: &str| {
        let text = fs::read(workspace::root().join(name)).ok()?;
        String::from_utf8(text).ok().map(|text| File::new(name, &text))
    };
    Ok(names.split('\0').filter(|name| !name.is_empty()).filter_map(read).collect())
}

/// Where a line of Rust starts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Code,
    /// Inside a string that ends with this.
    Text(String),
    /// Inside so many nested block comments.
    Block(usize),
}

/// Separates code and comment of one line of Rust; `state` carries over what continues on the next line.
fn split(line: &str, state: &mut State) -> Line {
    let (mut code, mut comment) = (String::new(), String::new());
    let mut rest = line;
    while !rest.is_empty() {
        let used = match state {
            State::Code => {
                if let Some(text) = rest.strip_prefix("//") {
                    comment.push_str(text);
                    break;
                }
                step(rest, state, &mut code)
            }
            State::Text(end) => {
                if end == "\"" && rest.starts_with('\\') {
                    first(rest) + rest[1..].chars().next().map_or(0, char::len_utf8)
                } else if rest.starts_with(end.as_str()) {
                    let used = end.len();
                    code.push('"');
                    *state = State::Code;
                    used
                } else {
                    first(rest)
                }
            }
            State::Block(depth) => {
                let (used, now) = match rest {
                    _ if rest.starts_with("*/") => (2, *depth - 1),
                    _ if rest.starts_with("/*") => (2, *depth + 1),
                    _ => (first(rest), *depth),
                };
                comment.push_str(&rest[..used]);
                *state = if now == 0 { State::Code } else { State::Block(now) };
                used
            }
        };
        rest = &rest[used..];
    }
    Line { code, comment }
}

/// Takes one piece of code; returns its length.
fn step(rest: &str, state: &mut State, code: &mut String) -> usize {
    if rest.starts_with("/*") {
        *state = State::Block(1);
        return 2;
    }
    let after_word = code.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')).filter(|_| !after_word);
    if let Some(text) = raw {
        let hashes = text.len() - text.trim_start_matches('#').len();
        if text[hashes..].starts_with('"') {
            *state = State::Text(format!("\"{}", "#".repeat(hashes)));
            code.push('"');
            return rest.len() - text.len() + hashes + 1;
        }
    }
    if rest.starts_with('"') {
        *state = State::Text(String::from("\""));
        code.push('"');
        return 1;
    }
    // A character literal could hold a quote; a lifetime could not.
    for literal in ["'\"'", "'\\''", "'\\\"'", "'/'"] {
        if rest.starts_with(literal) {
            code.push_str("' '");
            return literal.len();
        }
    }
    let used = first(rest);
    code.push_str(&rest[..used]);
    used
}

fn first(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::File;

    fn code(text: &str) -> Vec<(String, String)> {
        let file = File::new("a/src/b.rs", text);
        file.lines.into_iter().map(|line| (line.code.trim_end().to_owned(), line.comment)).collect()
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        let text =
            "let a = \"asm! \\\" // no\"; // ORDER: yes\nlet b = r#\"static \" mut\"#; let c = '\"';\n";
        assert_eq!(
            code(text),
            [
                ("let a = \"\";".into(), " ORDER: yes".into()),
                ("let b = \"\"; let c = ' ';".into(), String::new()),
            ]
        );
    }

    #[test]
    fn what_spans_lines() {
        let text = "let a = \"one\n // two\"; three\n/* four\n five */ six";
        let lines = code(text);
        assert_eq!(lines[1].0, "\"; three");
        assert_eq!((lines[2].0.as_str(), lines[3].0.trim()), ("", "six"));
        assert!(lines[3].1.contains("five"));
    }
}
