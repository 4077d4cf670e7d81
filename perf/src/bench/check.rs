//! What a table must keep to. Each environment checks its own table in a test.

use core::fmt;

use super::key::is_word;
use super::{Bench, Case, CaseKey, Context, Lanes, Value};

/// What is wrong with a table. Cases are named by their row and their place in it, from 0.
#[derive(Clone, Copy, Debug)]
pub enum Flaw {
    /// An id that is not lower-case words joined by dots.
    BadId(&'static str),
    /// Two rows of one id.
    SameId(&'static str),
    /// A row that is valid in no lane.
    NoLane(&'static str),
    /// A parameter that cannot be part of a key, or a key that is too long.
    BadKey(&'static str),
    /// Two cases of one key.
    SameKey(&'static str, usize),
    /// A case of a placement class that its row does not name.
    BadClass(&'static str, usize),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadId(id) => write!(f, "{id}: not lower-case words joined by dots"),
            Self::SameId(id) => write!(f, "{id}: two rows have this id"),
            Self::NoLane(id) => write!(f, "{id}: valid in no lane"),
            Self::BadKey(id) => write!(f, "{id}: a case has a key that is too long or has bad words"),
            Self::SameKey(id, place) => write!(f, "{id}: case {place} has the key of an earlier one"),
            Self::BadClass(id, place) => write!(f, "{id}: the class of case {place} is not one of the row's"),
        }
    }
}

/// Checks the rows of a table and the cases they have on this machine.
///
/// # Errors
/// The first [`Flaw`] found.
pub fn check<C: Context>(table: &[Bench<C>], context: &C) -> Result<(), Flaw> {
    for (place, row) in table.iter().enumerate() {
        if !is_word(row.id) || row.id.split('.').any(str::is_empty) {
            return Err(Flaw::BadId(row.id));
        }
        if table.iter().take(place).any(|other| other.id == row.id) {
            return Err(Flaw::SameId(row.id));
        }
        if row.lanes == Lanes::NONE {
            return Err(Flaw::NoLane(row.id));
        }
        let mut result = Ok(());
        let mut place = 0;
        (row.cases)(context, &mut |case| {
            if result.is_ok() {
                result = check_case(row, context, &case, place);
            }
            place += 1;
        });
        result?;
    }
    Ok(())
}

fn check_case<C: Context>(row: &Bench<C>, context: &C, case: &Case, place: usize) -> Result<(), Flaw> {
    let fine = |(name, value)| {
        is_word(name)
            && match value {
                Value::Num(_) => true,
                Value::Word(word) => is_word(word),
            }
    };
    let key = CaseKey { id: row.id, params: &case.params };
    if !case.params.iter().all(fine) || key.text().is_none() {
        return Err(Flaw::BadKey(row.id));
    }
    if !row.classes.contains(&case.placement.class) {
        return Err(Flaw::BadClass(row.id, place));
    }
    let (mut at, mut twice) = (0, false);
    (row.cases)(context, &mut |other| {
        twice |= at < place && other.params == case.params;
        at += 1;
    });
    if twice { Err(Flaw::SameKey(row.id, place)) } else { Ok(()) }
}
