//! The run directory: how results are laid out, written so that nothing unfinished looks finished, and read back.
//!
//! R1: a file named in a row exists, complete and synced, before the row is appended to `cases.jsonl`.
//! R2: `COMPLETE` is the last file written, and only when every selected case has its row.
//! R3: `run.json`, `env.json`, histograms and matrices are replaced as a whole (temporary sibling, sync, rename), so a
//!     reader never sees half of one; `cases.jsonl` and `serial.log` only grow.
//!
//! [`schema`] holds the types, [`collect`] makes rows from records, [`disk`] the two ways of writing, [`writer`] and [`reader`] the directory, [`hlog`] the
//! histograms, [`env`] what is asked of the host. `results/README.md` is the manual.

pub mod collect;
pub mod disk;
pub mod env;
pub mod hlog;
pub mod reader;
pub mod schema;
pub mod units;
pub mod writer;

#[cfg(test)]
mod readme_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
pub mod testing;
