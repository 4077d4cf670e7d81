//! Other systems: their figures in `results/peers/`, and `cargo xtask peers`, which measures one of them anew.
//!
//! A file holds what one system in one configuration took in one lane, and how that is known. The report sets a figure beside every row of
//! the same lane whose name and parameters it names. [`linux`] boots a Linux under the arguments Nearfield is measured with.

mod cpio;
mod linux;

use crate::cli::{PeerSystem, PeersArgs};
use crate::error::{Class, Error, Result};
use crate::results::schema::CaseRow;
use crate::ui;
use crate::workspace;
use abi::boot::Lane;
use perf::bench::{Quantity, Unit};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the format of these files.
pub const VERSION: u32 = 1;

/// What is known of one system in one configuration and one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PeerFile {
    /// Version of the format.
    pub schema: u32,
    /// Name of the system.
    pub system: String,
    /// Its version, as exactly as it is known.
    pub version: String,
    /// How it was built and started, as far as a figure depends on it.
    pub configuration: String,
    /// Lane: figures stand beside rows of this lane only.
    pub lane: String,
    /// How the figures were obtained: what was run, where they are written down.
    pub obtained: String,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Name of the Nearfield benchmark it stands beside.
    pub name: String,
    /// Parameters that a row must have, among others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// What the system did: its own operation, in a few words.
    pub by: String,
    /// The typical cost of one operation.
    pub figure: u64,
    /// Unit of the figure, one of those of the rows.
    pub unit: String,
}

impl PeerFile {
    /// Its name and version, as the head of a column.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}", self.system, self.version)
    }

    /// The figures that stand beside a row.
    pub fn beside<'p>(&'p self, row: &'p CaseRow) -> impl Iterator<Item = &'p Figure> {
        let lane = self.lane == row.lane;
        self.figures.iter().filter(move |figure| lane && figure.applies(row))
    }

    /// What is wrong with the file; nothing if it is sound.
    #[must_use]
    pub fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        if self.schema != VERSION {
            flaws.push(format!("has format version {}, not {VERSION}", self.schema));
        }
        let texts = [&self.system, &self.version, &self.configuration, &self.obtained];
        if texts.iter().any(|text| text.trim().is_empty()) {
            flaws.push("does not say what was measured, or how".to_owned());
        }
        let Some(lane) = Lane::parse(&self.lane) else {
            flaws.push(format!("has the unknown lane `{}`", self.lane));
            return flaws;
        };
        let mut seen = BTreeSet::new();
        for figure in &self.figures {
            if !seen.insert((&figure.name, &figure.params, &figure.by)) {
                flaws.push(format!("{}: the same figure twice", figure.name));
            }
            flaws.extend(figure.flaw(lane).map(|what| format!("{}: {what}", figure.name)));
        }
        flaws
    }
}

impl Figure {
    fn applies(&self, row: &CaseRow) -> bool {
        let has = |(name, value): (&String, &String)| row.params.get(name) == Some(value);
        self.name == row.name && row.unit.as_ref() == Some(&self.unit) && self.params.iter().all(has)
    }

    fn flaw(&self, lane: Lane) -> Option<String> {
        let time = [Unit::MilliTicks, Unit::MilliInstructions, Unit::Picoseconds];
        match Unit::parse(&self.unit) {
            None => Some(format!("unknown unit `{}`", self.unit)),
            Some(unit) if time.contains(&unit) && unit != Quantity::Time.unit(lane) => {
                Some(format!("time in the lane {} is not in {}", lane.word(), self.unit))
            }
            Some(_) if self.figure == 0 => Some("a figure of 0 means that nothing was measured".to_owned()),
            Some(_) if self.by.trim().is_empty() => Some("does not say what the system did".to_owned()),
            Some(_) => None,
        }
    }
}

/// Where the files are.
#[must_use]
pub fn folder() -> PathBuf {
    workspace::root().join("results").join("peers")
}

/// Every file of a folder, by name; none if there is no folder.
///
/// # Errors
/// A file cannot be read, or [`Class::BadRun`]: it is not sound.
pub fn load(folder: &Path) -> Result<Vec<PeerFile>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<PeerFile> {
    let text = fs::read(path).map_err(|error| Error::io(&error, "read", path))?;
    let bad = |what: &str| {
        Error::new(Class::BadRun, format!("{}: {what}", path.display()))
            .next("mend it: results/schema/peer.schema.json says what it may hold")
    };
    let file: PeerFile = serde_json::from_slice(&text).map_err(|error| bad(&error.to_string()))?;
    match file.flaws().as_slice() {
        [] => Ok(file),
        flaws => Err(bad(&flaws.join("; "))),
    }
}

/// The subcommand.
///
/// # Errors
/// Whatever keeps the system from being built, booted or measured.
pub fn execute(args: &PeersArgs) -> Result<()> {
    let PeerSystem::Linux(args) = &args.system;
    let file = linux::measure(args)?;
    let path = args.output.clone().unwrap_or_else(|| folder().join("linux-icount.json"));
    let mut text = serde_json::to_string_pretty(&file)
        .map_err(|error| Error::new(Class::Io, format!("cannot encode the figures: {error}")))?;
    text.push('\n');
    fs::write(&path, text).map_err(|error| Error::io(&error, "write", &path))?;
    ui::line(&format!("peers: {} figures of {}: {}", file.figures.len(), file.title(), path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Figure, PeerFile, folder, load};
    use crate::error::Class;
    use crate::results::schema::CaseRow;
    use crate::results::testing::{self, TempDir};
    use crate::workspace;
    use std::fs;
    use std::path::Path;

    fn figure(name: &str, params: &[(&str, &str)]) -> Figure {
        let params = params.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (name, by, unit) = (name.to_owned(), "x".to_owned(), "milliinstructions".to_owned());
        Figure { name, params, by, figure: 5, unit }
    }

    fn file(figures: Vec<Figure>) -> PeerFile {
        let text = || "x".to_owned();
        let (system, version, configuration, obtained) = (text(), text(), text(), text());
        let lane = "icount".to_owned();
        PeerFile { schema: 1, system, version, configuration, lane, obtained, figures }
    }

    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => sources(&path, text),
                path => text.push_str(&fs::read_to_string(path).unwrap_or_default()),
            }
        }
    }

    /// What is committed is sound, and stands beside rows that there are.
    #[test]
    fn committed_files_name_rows_that_exist() {
        let files = load(&folder()).unwrap();
        assert!(
            files.iter().any(|file| file.system == "seL4") && files.iter().any(|file| file.system == "Linux")
        );
        let mut text = String::new();
        for part in ["kernel/src/bench", "user/bench/src"] {
            sources(&workspace::root().join(part), &mut text);
        }
        for figure in files.iter().flat_map(|file| &file.figures) {
            assert!(text.contains(&format!("\"{}\"", figure.name)), "there is no row {}", figure.name);
        }
    }

    /// Planted: the lane is not compared; parameters are not.
    #[test]
    fn figures_stand_beside_rows_of_their_lane_and_parameters() {
        let mut row = testing::row("a.b/x=1,y=2");
        (row.lane, row.unit) = ("icount".to_owned(), Some("milliinstructions".to_owned()));
        fn beside(file: &PeerFile, row: &CaseRow) -> usize {
            file.beside(row).count()
        }
        let peer = file(vec![figure("a.b", &[("x", "1")]), figure("a.b", &[("x", "2")]), figure("a.c", &[])]);
        assert_eq!(beside(&peer, &row), 1);
        row.lane = "tcg".to_owned();
        assert_eq!(beside(&peer, &row), 0);
        (row.lane, row.unit) = ("icount".to_owned(), Some("bytes".to_owned()));
        assert_eq!(beside(&peer, &row), 0);
    }

    #[test]
    fn each_flaw_is_found() {
        let good = || file(vec![figure("a.b", &[])]);
        assert_eq!(good().flaws(), Vec::<String>::new());
        let flaw = |change: fn(&mut PeerFile)| {
            let mut file = good();
            change(&mut file);
            file.flaws().len()
        };
        let changes: [fn(&mut PeerFile); 8] = [
            |file| file.schema = 2,
            |file| file.obtained.clear(),
            |file| file.lane = "fast".to_owned(),
            |file| file.figures[0].unit = "ps".to_owned(),
            |file| file.figures[0].unit = "furlongs".to_owned(),
            |file| file.figures[0].figure = 0,
            |file| file.figures[0].by.clear(),
            |file| file.figures.push(file.figures[0].clone()),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(flaw(change), 1, "change {index}");
        }
    }

    #[test]
    fn a_file_that_is_not_sound_is_an_error() {
        let dir = TempDir::new("peers");
        assert_eq!(load(&dir.path().join("absent")).unwrap(), Vec::new());
        let text = serde_json::to_string(&file(vec![figure("a.b", &[])])).unwrap();
        fs::write(dir.path().join("a.json"), &text).unwrap();
        fs::write(dir.path().join("README"), "not read").unwrap();
        assert_eq!(load(dir.path()).unwrap().len(), 1);
        for bad in [text.replace("\"lane\"", "\"line\""), text.replace(":5", ":0"), String::new()] {
            fs::write(dir.path().join("b.json"), bad).unwrap();
            assert_eq!(load(dir.path()).unwrap_err().class(), Class::BadRun);
        }
    }
}
