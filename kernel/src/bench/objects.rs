//! What kernel objects take of memory.

use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::runner::Trouble;

use super::{Lab, place};
use crate::spaces::Space;
use crate::{process, thread};

const THREAD: &str = "thread";
const PROCESS: &str = "process";
const SPACE: &str = "space";

/// Sizes.
pub(super) const SIZE: Bench<Lab> = Bench {
    id: "object.size",
    version: 1,
    doc: "memory of an object, apart from a thread's extended registers, a process's capability table, a space's page tables",
    quantity: Quantity::Bytes,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |_, visit| {
        for of in [THREAD, PROCESS, SPACE] {
            visit(Case::new(place::alone()).with("of", Value::Word(of)));
        }
    },
    run: |_, case, meter| {
        let bytes = match case.params.word("of") {
            Some(THREAD) => thread::BYTES,
            Some(PROCESS) => process::BYTES,
            Some(SPACE) => size_of::<Space>(),
            _ => return Err(Trouble::Failed("no such object")),
        };
        meter.value(bytes as u64);
        Ok(())
    },
};
