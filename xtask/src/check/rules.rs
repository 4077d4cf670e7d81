//! The house rules that a search can check.

use super::source::{File, Line};

/// One rule: what it says, and the lines (from 1; 0 for the whole file) that break it.
struct Rule {
    says: &'static str,
    broken: fn(&File) -> Vec<usize>,
}

/// Crates that promise to have no unsafe code.
const SAFE: &[&str] = &["abi", "cap", "sched", "ipc", "perf"];
/// Lines above an atomic ordering in which its comment may be.
const ORDER_REACH: usize = 6;
/// Most features of a crate.
const MAX_FEATURES: usize = 5;
const LIMITS: &[(&str, usize)] = &[("README.md", 120), ("ARCHITECTURE.md", 250)];
const MAX_LINKER_SCRIPT: usize = 80;
const VAGUE: &[&str] = &["lib", "common", "utils", "misc", "archive"];

const RULES: &[Rule] = &[
    Rule { says: "assembly lives in */src/arch or boot", broken: assembly },
    Rule { says: "portable code does not name an architecture", broken: architecture },
    Rule { says: "an atomic ordering needs a `// ORDER:` comment that names its partner", broken: orderings },
    Rule { says: "no `static mut`", broken: |file| code_with(file, &is_static_mut) },
    Rule {
        says: "no nightly features",
        broken: |file| code_with(file, &|code| code.contains("#![feature(")),
    },
    Rule { says: "a TODO names its issue: TODO(#n)", broken: todos },
    Rule { says: "the crate promises `#![forbid(unsafe_code)]`", broken: unforbidden },
    Rule { says: "a file starts with `//!`", broken: no_header },
    Rule { says: "longer than agreed", broken: too_long },
    Rule { says: "at most five features, each additive", broken: features },
    Rule { says: "a folder is named after what it holds", broken: vague },
];

/// Every line that breaks a rule.
pub(super) fn find(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for rule in RULES {
            for line in (rule.broken)(file) {
                findings.push(match line {
                    0 => format!("rules: {}: {}", file.path, rule.says),
                    _ => format!("rules: {}:{line}: {}", file.path, rule.says),
                });
            }
        }
    }
    findings
}

fn code_with(file: &File, breaks: &dyn Fn(&str) -> bool) -> Vec<usize> {
    if file.is_rust() { lines_with(file, &|line| breaks(&line.code)) } else { Vec::new() }
}

fn lines_with(file: &File, breaks: &dyn Fn(&Line) -> bool) -> Vec<usize> {
    (1..).zip(&file.lines).filter(|(_, line)| breaks(line)).map(|(number, _)| number).collect()
}

/// A mutable static; not a `&'static mut` reference.
fn is_static_mut(code: &str) -> bool {
    code.match_indices("static mut ").any(|(at, _)| !code[..at].ends_with('\''))
}

/// Whether the whole file is tests.
fn is_tests(file: &File) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    file.path.contains("/tests/") || name.ends_with("tests.rs") || name == "models.rs"
}

/// The first line of the tests at the end of a file.
fn start_of_tests(file: &File) -> usize {
    let is_gate =
        |code: &str| code.starts_with("#[cfg(") && code.contains("test") && !code.contains("not(test");
    let inline = |pair: &[Line]| {
        is_gate(pair[0].code.trim())
            && pair[1].code.contains("mod ")
            && pair[1].code.trim_end().ends_with('{')
    };
    file.lines.windows(2).position(inline).unwrap_or(file.lines.len())
}

fn may_know_machine(file: &File) -> bool {
    file.path.contains("/src/arch") || file.crate_name() == "boot"
}

fn assembly(file: &File) -> Vec<usize> {
    if may_know_machine(file) {
        return Vec::new();
    }
    // The closing parenthesis or brace is not asked for: a macro may be called with either.
    code_with(file, &|code| code.contains("asm!") || code.contains("unsafe(naked)"))
}

fn architecture(file: &File) -> Vec<usize> {
    // The host tool measures on the host it runs on, whose clock it has to name.
    if may_know_machine(file) || file.crate_name() == "xtask" {
        return Vec::new();
    }
    code_with(file, &|code| code.contains("target_arch"))
}

fn orderings(file: &File) -> Vec<usize> {
    const WORDS: [&str; 5] = ["Acquire", "Release", "AcqRel", "SeqCst", "Relaxed"];
    if !file.is_rust() || is_tests(file) {
        return Vec::new();
    }
    let uses = |code: &str| {
        let is_use = code.trim_start().starts_with("use ") || code.trim_start().starts_with("pub use ");
        !is_use
            && code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| WORDS.contains(&word))
    };
    let tests = start_of_tests(file);
    let explained = |at: usize| {
        let from = at.saturating_sub(ORDER_REACH);
        file.lines[from..=at].iter().any(|line| line.comment.contains("ORDER:"))
    };
    (0..tests).filter(|&at| uses(&file.lines[at].code) && !explained(at)).map(|at| at + 1).collect()
}

fn todos(file: &File) -> Vec<usize> {
    const MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];
    if !file.is_rust() {
        return Vec::new();
    }
    let unnumbered = |text: &str| {
        MARKS.iter().any(|mark| {
            text.match_indices(mark).any(|(at, _)| {
                let after = &text[at + mark.len()..];
                let word_goes_on = after.starts_with(|c: char| c.is_ascii_alphanumeric());
                let word_began = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
                !word_goes_on && !word_began && !after.starts_with("(#")
            })
        })
    };
    lines_with(file, &|line| unnumbered(&line.comment) || line.code.contains("todo!("))
}

fn unforbidden(file: &File) -> Vec<usize> {
    let root = SAFE.iter().any(|name| file.path == format!("{name}/src/lib.rs"));
    let promised = file.lines.iter().any(|line| line.code.contains("#![forbid(unsafe_code)]"));
    if root && !promised { vec![0] } else { Vec::new() }
}

fn no_header(file: &File) -> Vec<usize> {
    let header = file.lines.first().is_some_and(|line| line.code.is_empty() && line.comment.starts_with('!'));
    if file.is_rust() && !is_tests(file) && !header { vec![1] } else { Vec::new() }
}

fn too_long(file: &File) -> Vec<usize> {
    let linker_script = file.path.ends_with(".ld").then_some(MAX_LINKER_SCRIPT);
    let named = LIMITS.iter().find(|(path, _)| *path == file.path).map(|&(_, limit)| limit);
    let over = named.or(linker_script).is_some_and(|limit| file.lines.len() > limit);
    if over { vec![0] } else { Vec::new() }
}

fn features(file: &File) -> Vec<usize> {
    if !file.path.ends_with("Cargo.toml") {
        return Vec::new();
    }
    let text: Vec<&str> = file.lines.iter().map(|line| line.code.as_str()).collect();
    let count = text
        .join("\n")
        .parse::<toml::Table>()
        .ok()
        .and_then(|manifest| manifest.get("features")?.as_table().map(toml::Table::len));
    if count.is_some_and(|count| count > MAX_FEATURES) { vec![0] } else { Vec::new() }
}

fn vague(file: &File) -> Vec<usize> {
    let folder = file.crate_name();
    if VAGUE.contains(&folder) || folder.starts_with("old_") { vec![0] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::{File, find};

    /// The findings in one file.
    fn of(path: &str, text: &str) -> usize {
        let findings = find(&[File::new(path, text)]);
        assert!(findings.iter().all(|finding| finding.contains(path)));
        findings.len()
    }

    fn body(code: &str) -> String {
        format!("//! A file.\n{code}\n")
    }

    #[test]
    fn each_rule_can_fail() {
        let broken = [
            ("mm/src/a.rs", body("core::arch::asm!(\"nop\");")),
            ("mm/src/a.rs", body("#[cfg(target_arch = \"x86_64\")]")),
            ("mm/src/a.rs", body("x.load(Ordering::Acquire);")),
            ("mm/src/a.rs", body("#[cfg(test)]\nmod tests;\nfn a() { x.load(SeqCst); }")),
            ("mm/src/a.rs", body("static mut X: u8 = 0;")),
            ("mm/src/a.rs", body("#![feature(never_type)]")),
            ("mm/src/a.rs", body("// TODO: later")),
            ("mm/src/a.rs", body("todo!()")),
            ("abi/src/lib.rs", body("")),
            ("mm/src/a.rs", String::from("fn main() {}\n")),
            ("README.md", "line\n".repeat(121)),
            ("kernel/link.ld", "line\n".repeat(81)),
            ("mm/Cargo.toml", String::from("[features]\na=[]\nb=[]\nc=[]\nd=[]\ne=[]\nf=[]\n")),
            ("utils/notes.md", String::from("x\n")),
        ];
        for (path, text) in broken {
            assert_eq!(of(path, &text), 1, "{path}: {text}");
        }
    }

    #[test]
    fn what_is_allowed() {
        let fine = [
            ("kernel/src/arch/x86_64/a.rs", body("core::arch::asm!(\"nop\");")),
            ("boot/src/a.rs", body("global_asm!(\"nop\");")),
            ("mm/src/a.rs", body("// ORDER: Acquire pairs with Release in `free`.\nx.load(Acquire);")),
            ("mm/src/a.rs", body("use percpu::sync::Ordering::{Acquire, Release};")),
            ("mm/src/a.rs", body("// TODO(#3): later")),
            ("mm/src/a.rs", body("let a = \"static mut asm! TODO\";")),
            ("mm/src/a.rs", body("#[cfg(all(test, not(loom)))]\nmod tests {\nfn a() { x.load(SeqCst); }\n}")),
            ("mm/src/a_tests.rs", String::from("x.load(SeqCst);")),
            ("mm/src/a.rs", body("fn load(&'static mut self) {}")),
            ("abi/src/lib.rs", body("#![forbid(unsafe_code)]")),
            ("README.md", "line\n".repeat(120)),
        ];
        for (path, text) in fine {
            assert_eq!(of(path, &text), 0, "{path}: {text}");
        }
    }
}
