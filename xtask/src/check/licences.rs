//! Licences of the dependencies: each must allow use under the project's own terms.

use serde_json::Value;

/// Permissive licences, by SPDX identifier.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Every dependency whose licence is missing or not allowed.
pub(super) fn find(metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let members = metadata["workspace_members"].as_array().unwrap_or(&empty);
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let foreign = packages.iter().filter(|package| !members.contains(&package["id"]));
    foreign.filter(|package| !allows(package["license"].as_str().unwrap_or_default())).map(describe).collect()
}

fn describe(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or("none").to_owned();
    format!("licences: {} {} has the licence `{}`", text("name"), text("version"), text("license"))
}

/// Whether a licence expression can be met with [`ALLOWED`] alone. `OR` binds weaker than `AND` (SPDX 2.3, annex D);
/// the slash of old manifests means `OR`.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest) == Some(true) && rest.is_empty()
}

/// Alternatives; `None` when the expression is malformed.
fn either(words: &mut &[&str]) -> Option<bool> {
    let mut met = all(words)?;
    while take(words, "OR") {
        met |= all(words)?;
    }
    Some(met)
}

fn all(words: &mut &[&str]) -> Option<bool> {
    let mut met = one(words)?;
    while take(words, "AND") {
        met &= one(words)?;
    }
    Some(met)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let met = either(words)?;
        return take(words, ")").then_some(met);
    }
    let (&name, rest) = words.split_first()?;
    *words = rest;
    if matches!(name, "OR" | "AND" | "WITH" | ")") {
        return None;
    }
    if !take(words, "WITH") {
        return Some(ALLOWED.contains(&name));
    }
    let (&exception, rest) = words.split_first()?;
    *words = rest;
    Some(ALLOWED.contains(&format!("{name} WITH {exception}").as_str()))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    match words.split_first() {
        Some((&first, rest)) if first == word => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{allows, find};
    use serde_json::json;

    #[test]
    fn expressions() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        ] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR Apache-2.0) AND MPL-2.0",
            "MIT OR",
            "(MIT",
            "MIT Apache-2.0",
            "MIT WITH Classpath-exception-2.0",
        ] {
            assert!(!allows(bad), "{bad}");
        }
    }

    #[test]
    fn members_are_not_dependencies() {
        let metadata = json!({ "workspace_members": ["a"], "packages": [
            { "id": "a", "name": "a", "license": null },
            { "id": "b", "name": "b", "version": "1.0.0", "license": null },
        ]});
        assert_eq!(find(&metadata), ["licences: b 1.0.0 has the licence `none`"]);
    }
}
