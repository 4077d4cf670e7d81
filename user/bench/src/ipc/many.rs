//! Many that talk at once.

use abi::boot::Lane;
use abi::ipc::WORDS;
use abi::task::ProcessSpec;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Lanes, Placement, Value};
use perf::clock::Nanos;
use rt::handle::Endpoint;
use rt::thread::JoinHandle;

use super::{OTHER, Outcome, ROUND_TRIP, SAME, Service, Talk, greet, message, threads};
use crate::partner::Partner;
use crate::storm::Storm;
use crate::{Lab, failed, place};

/// The length of a window.
const WINDOW: Nanos = Nanos::new(500_000);

/// A client and a server on each of so many cores.
pub(in super::super) const PAIRS: Bench<Lab> = Bench {
    id: "ipc.pairs",
    doc: "as ipc.rt with eight words on one core, on so many cores at once: the time of all cores together for each of all their round trips",
    // An emulator that runs one core at a time hands over so seldom that a storm on several takes minutes, and shows nothing.
    lanes: Lanes::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Icount),
    classes: &[Class::Scaling],
    batch: 1,
    cases: |lab, visit| {
        for cores in lab.scales() {
            for space in [SAME, OTHER] {
                let case = Case::new(Placement::scaling(cores as u32));
                visit(case.with("cores", Value::Num(cores as u64)).with("space", Value::Word(space)));
            }
        }
    },
    run: |lab, case, meter| {
        let cores = case.placement.cores as usize;
        let mut crowd = Crowd::default();
        for core in 0..cores {
            crowd.serve(lab, core, case.params.word("space") == Some(SAME))?;
        }
        let storm = crowd.call((0..cores).map(|core| (core, core)))?;
        // The instruction lane runs one core at a time; on the others, time passes on all cores at once.
        storm.measure(lab, if lab.lane == Lane::Icount { 1 } else { cores as u64 }, meter)
    },
    ..ROUND_TRIP
};

/// One server for all.
pub(in super::super) const FAN_IN: Bench<Lab> = Bench {
    id: "ipc.fanin",
    doc: "so many clients, each on a core of its own, call one server on another core: the time from one answer to the next; in the instruction lane, the work of all cores for each",
    cases: |lab, visit| {
        for clients in lab.scales().filter(|&clients| clients < lab.cores()) {
            visit(Case::new(Placement::scaling(clients as u32)).with("cores", Value::Num(clients as u64)));
        }
    },
    run: |lab, case, meter| {
        let mut crowd = Crowd::default();
        crowd.serve(lab, place::HERE, false)?;
        let clients = 1..=case.placement.cores as usize;
        crowd.call(clients.map(|core| (core, 0)))?.measure(lab, 1, meter)
    },
    ..PAIRS
};

/// Servers, until this goes: those of this process end when their endpoints do.
#[derive(Default)]
struct Crowd {
    talks: Vec<Talk>,
    _threads: Vec<JoinHandle<rt::handle::Result<()>>>,
    _partners: Vec<Partner>,
}

impl Crowd {
    /// Adds a server on a core.
    fn serve(&mut self, lab: &Lab, core: usize, same_space: bool) -> Outcome {
        let talk = Talk::new(0).map_err(failed)?;
        let given = talk.given();
        if same_space {
            let thread = threads(false, core).spawn(move || Service::Echo.run(&given));
            self._threads.push(thread.map_err(failed)?);
        } else {
            let word = Service::Echo.word();
            self._partners.push(Partner::with(lab, word, core, ProcessSpec::NO_FPU, &given.handles())?);
        }
        greet(*talk.to, message(WORDS)).map_err(failed)?;
        self.talks.push(talk);
        Ok(())
    }

    /// Starts clients, each on a core, of a server by its number.
    fn call(&self, clients: impl Iterator<Item = (usize, usize)>) -> Outcome<Storm> {
        let mut storm = Storm::new(WINDOW);
        for (core, server) in clients {
            let to: Option<Endpoint> = self.talks.get(server).map(|talk| *talk.to);
            let Some(to) = to else { continue };
            let mut last = message(WORDS);
            let turn = move || to.call(last).map(|answer| last = answer).is_ok();
            storm.add(threads(false, core), turn).map_err(failed)?;
        }
        Ok(storm)
    }
}
