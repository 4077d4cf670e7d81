//! The committed schemas equal the types, and written runs satisfy them.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p xtask schema` rewrites `results/schema/` after a deliberate change.

use crate::compare::schema::{BaselineFile, CompareFile, NoiseFile};
use crate::history::HistoryFile;
use crate::irqoff::StretchFile;
use crate::peers::{self, PeerFile};
use crate::report;
use crate::results::disk::FileSystem;
use crate::results::schema::{CaseRow, CompleteFile, EnvFile, RunFile, TraceRow};
use crate::results::testing::{self, TempDir};
use crate::results::writer::RunWriter;
use schemars::JsonSchema;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/schema")
}

fn generated<T: JsonSchema>() -> Value {
    generated_from::<T>("xtask/src/results/schema.rs")
}

fn generated_from<T: JsonSchema>(source: &str) -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    let object = schema.as_object_mut().unwrap();
    object.insert("$comment".into(), format!("Generated from {source}; do not edit.").into());
    schema
}

fn committed(name: &str) -> Value {
    let path = folder().join(format!("{name}.schema.json"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn committed_schemas_equal_the_types() {
    let all = [
        ("run", generated::<RunFile>()),
        ("env", generated::<EnvFile>()),
        ("case", generated::<CaseRow>()),
        ("complete", generated::<CompleteFile>()),
        ("trace", generated::<TraceRow>()),
        ("peer", generated_from::<PeerFile>("xtask/src/peers/mod.rs")),
        ("compare", generated_from::<CompareFile>("xtask/src/compare/schema.rs")),
        ("baseline", generated_from::<BaselineFile>("xtask/src/compare/schema.rs")),
        ("noise", generated_from::<NoiseFile>("xtask/src/compare/schema.rs")),
        ("irqoff", generated_from::<StretchFile>("xtask/src/irqoff/mod.rs")),
        ("history", generated_from::<HistoryFile>("xtask/src/history/mod.rs")),
    ];
    for (name, schema) in all {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            fs::write(folder().join(format!("{name}.schema.json")), text).unwrap();
        }
        assert_eq!(committed(name), schema, "{name}: run UPDATE_SCHEMAS=1 cargo test -p xtask schema");
    }
}

#[test]
fn written_files_satisfy_their_schemas() {
    let dir = TempDir::new("schema");
    let mut writer =
        RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap();
    writer.case(testing::finished("a.b/x=1")).unwrap();
    writer.trace(&[testing::trace_row(0, 7, 99, "ipi", &[])]).unwrap();
    writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
    let files = [
        ("run", "run.json"),
        ("env", "env.json"),
        ("case", "cases.jsonl"),
        ("complete", "COMPLETE"),
        ("trace", "trace.jsonl"),
    ];
    for (name, file) in files {
        let mut value: Value = serde_json::from_slice(&fs::read(writer.dir().join(file)).unwrap()).unwrap();
        let validator = jsonschema::draft202012::new(&committed(name)).unwrap();
        assert!(validator.is_valid(&value), "{file}: {:?}", validator.iter_errors(&value).next());

        let object = value.as_object_mut().unwrap();
        object.insert("surprise".into(), 1.into());
        assert!(!validator.is_valid(&value), "{file} accepts an unknown field");
        value.as_object_mut().unwrap().clear();
        assert!(!validator.is_valid(&value), "{file} accepts nothing");
    }
}

#[test]
fn committed_figures_of_other_systems_satisfy_their_schema() {
    let validator = jsonschema::draft202012::new(&committed("peer")).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(peers::folder()).unwrap().flatten() {
        let value: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        assert!(validator.is_valid(&value), "{:?}: {:?}", entry.path(), validator.iter_errors(&value).next());
        files += 1;
    }
    assert!(files > 0);
}
