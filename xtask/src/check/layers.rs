//! Which crate may see which: the layers of ARCHITECTURE.md, checked against what cargo resolves.

use serde_json::Value;

/// The kernel's layers, low to high. A crate sees only crates of lower layers.
const LAYERS: &[&[&str]] =
    &[&["abi"], &["perf"], &["percpu"], &["mm"], &["cap", "sched"], &["ipc"], &["kernel"]];
/// What a crate under `user/`, or the loader, or one of the host's, sees of the kernel's crates.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("boot", &["abi"]),
    ("witness", &[]),
    ("xtask", &["abi", "perf", "percpu", "mm", "cap", "sched", "ipc"]),
];
const USER: &[&str] = &["abi", "perf"];
/// What programs are written with, itself under `user/`.
const RUNTIME: &str = "rt";

/// What a member of the workspace may see of the workspace; `None` for a crate that has no layer.
fn visible(member: &str, folder: &str) -> Option<Vec<&'static str>> {
    if let Some(layer) = LAYERS.iter().position(|layer| layer.contains(&member)) {
        return Some(LAYERS[..layer].concat());
    }
    if let Some((_, seen)) = OUTSIDE.iter().find(|(name, _)| *name == member) {
        return Some(seen.to_vec());
    }
    let runtime = (member != RUNTIME).then_some(RUNTIME);
    folder.contains("/user/").then(|| USER.iter().copied().chain(runtime).collect())
}

/// Every dependency that points the wrong way.
pub(super) fn find(metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let members = metadata["workspace_members"].as_array().unwrap_or(&empty);
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let members: Vec<&Value> = packages.iter().filter(|package| members.contains(&package["id"])).collect();
    let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
    let mut findings = Vec::new();
    if names.is_empty() {
        findings.push(String::from("layers: cargo metadata lists no member of the workspace"));
    }
    for member in &members {
        let name = member["name"].as_str().unwrap_or_default();
        let folder = member["manifest_path"].as_str().unwrap_or_default();
        let Some(visible) = visible(name, folder) else {
            findings.push(format!("layers: {name} has no layer; give it one in xtask/src/check/layers.rs"));
            continue;
        };
        let dependencies = member["dependencies"].as_array().unwrap_or(&empty);
        for seen in dependencies.iter().filter_map(|dependency| dependency["name"].as_str()) {
            // A crate that depends on itself switches on its own features for its tests.
            if names.contains(&seen) && seen != name && !visible.contains(&seen) {
                findings.push(format!("layers: {name} depends on {seen}, which is not below it"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::find;
    use serde_json::{Value, json};

    /// Those under `user/`.
    const USERS: &[&str] = &["rt", "shell"];

    fn workspace(members: &[(&str, &[&str])]) -> Value {
        let package = |(name, dependencies): &(&str, &[&str])| {
            let dependencies: Vec<Value> = dependencies.iter().map(|name| json!({ "name": name })).collect();
            json!({ "id": name, "name": name, "manifest_path": format!("/r/{}{name}/Cargo.toml", if USERS.contains(name) { "user/" } else { "" }), "dependencies": dependencies })
        };
        let ids: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        json!({ "workspace_members": ids, "packages": members.iter().map(package).collect::<Vec<_>>() })
    }

    #[test]
    fn downwards_is_fine() {
        let members: &[(&str, &[&str])] = &[
            ("abi", &[]),
            ("perf", &["abi", "perf", "serde"]),
            ("mm", &["perf"]),
            ("kernel", &["mm", "abi"]),
            ("rt", &["abi", "perf"]),
            ("shell", &["rt", "abi"]),
        ];
        assert_eq!(find(&workspace(members)), Vec::<String>::new());
    }

    #[test]
    fn upwards_sideways_and_unknown_are_found() {
        let members: &[(&str, &[&str])] = &[
            ("abi", &["perf"]),
            ("perf", &[]),
            ("cap", &["sched"]),
            ("sched", &[]),
            ("boot", &["mm"]),
            ("mm", &[]),
            ("fs", &[]),
            ("rt", &["shell"]),
            ("shell", &["mm"]),
        ];
        let findings = find(&workspace(members));
        assert_eq!(findings.len(), 6, "{findings:?}");
        assert!(!find(&json!({})).is_empty());
    }
}
