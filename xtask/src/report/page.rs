//! What a page shows: sides of runs, what `compare` found of them, and their history.

use crate::compare::schema::CompareFile;
use crate::error::{Class, Error, Result};
use crate::history::SeriesFile;
use crate::results::reader::Run;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs that are shown as one: each boot of each of them is a dot, all of them share a colour.
#[derive(Debug)]
pub(super) struct Shown {
    /// What it is called on the page; empty where it is alone.
    pub(super) label: String,
    /// Its runs, at least one.
    pub(super) runs: Vec<Run>,
}

impl Shown {
    /// The newest run, for what all share.
    pub(super) fn last(&self) -> &Run {
        self.runs.last().expect("H2: a side has a run")
    }

    /// Boots of all runs.
    pub(super) fn boots(&self) -> u32 {
        self.runs.iter().map(|run| run.run.repeats).sum()
    }
}

/// How much of every boot a page shows: less, where all of it would be too large for one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    /// Curves and rows of every boot.
    Boots,
    /// Curves and rows of the boot in the middle.
    Typical,
    /// Tables, and no curve.
    Tables,
}

impl Detail {
    /// From the most to the least.
    pub(super) const ALL: [Self; 3] = [Self::Boots, Self::Typical, Self::Tables];

    /// What a reader has to know, if anything is left out.
    pub(super) const fn says(self) -> Option<&'static str> {
        match self {
            Self::Boots => None,
            Self::Typical => Some(
                "Curves and percentiles are those of the boot whose median is in the middle: those of all boots would be too \
                 large for one file.",
            ),
            Self::Tables => Some(
                "There is no room for percentile curves and cells of matrices in one file of this many cases: name fewer runs, \
                 or measure with a filter.",
            ),
        }
    }
}

/// A page. H2: it has at least one side, each of at least one run, all of one lane.
#[derive(Debug)]
pub(super) struct Page {
    /// The sides, a base first.
    pub(super) sides: Vec<Shown>,
    /// The verdicts, if there is a base.
    pub(super) found: Option<CompareFile>,
    /// The words of the base on the command line, and of what it was compared with.
    pub(super) compared: Option<(String, String)>,
    /// The series of the cases shown, if asked for.
    pub(super) history: Option<Vec<SeriesFile>>,
    /// Where the runs of the series are, if not where runs usually are.
    pub(super) history_root: Option<PathBuf>,
    /// The command that writes this page.
    pub(super) command: String,
}

impl Page {
    /// Puts sides on a page.
    ///
    /// # Errors
    /// [`Class::Unusable`]: their lanes differ.
    pub(super) fn of(sides: Vec<Shown>, command: String) -> Result<Self> {
        let lanes: BTreeSet<&str> =
            sides.iter().flat_map(|side| &side.runs).map(|run| run.run.lane.as_str()).collect();
        if lanes.len() > 1 {
            let lanes: Vec<&str> = lanes.into_iter().collect();
            let what = format!("different lanes are never shown together: {}", lanes.join(", "));
            return Err(Error::new(Class::Unusable, what).next("write a report of each lane"));
        }
        Ok(Self { sides, found: None, compared: None, history: None, history_root: None, command })
    }

    /// Whether there is one side only.
    pub(super) fn alone(&self) -> bool {
        self.sides.len() == 1
    }

    /// The side of interest: the new one.
    pub(super) fn newest(&self) -> &Shown {
        self.sides.last().expect("H2: a page has a side")
    }

    /// Whether some side has several boots.
    pub(super) fn boots(&self) -> bool {
        self.sides.iter().any(|side| side.boots() > 1)
    }
}
