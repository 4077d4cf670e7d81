//! Loom model of guests and an end: what they work on is a cell that loom watches. Preemption bound: 3.

use super::Guests;
use crate::sync::atomic::{AtomicU32, Ordering};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

struct Thing {
    guests: Guests,
    ends: AtomicU32,
    value: UnsafeCell<u32>,
}

// SAFETY: guests read the value, and who ends the thing writes it alone (J3), which is what the model shows.
unsafe impl Send for Thing {}
// SAFETY: as above.
unsafe impl Sync for Thing {}

impl Thing {
    fn visit(&self) {
        let lives = || self.ends.load(Ordering::SeqCst) == 0;
        // SAFETY: as a guest of what lives (J3).
        let seen = self.guests.visit(lives, || self.value.with(|value| unsafe { *value }));
        assert!(seen.is_none_or(|seen| seen == 0), "J3: a guest has found it taken down");
    }
}

/// Two guests, one of whom comes twice, and an end.
///
/// Planted: a look before the guest has entered; no total order between the two; a Relaxed leave.
#[test]
fn loom_nobody_is_a_guest_of_what_is_taken_down() {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let thing =
            Arc::new(Thing { guests: Guests::new(), ends: AtomicU32::new(0), value: UnsafeCell::new(0) });
        let guests = [2, 1].map(|times| {
            let thing = thing.clone();
            thread::spawn(move || (0..times).for_each(|_| thing.visit()))
        });
        thing.ends.store(1, Ordering::SeqCst);
        while thing.guests.are_there() {
            thread::yield_now();
        }
        // SAFETY: no guest is there, and none comes (J3).
        thing.value.with_mut(|value| unsafe { *value = 1 });
        guests.into_iter().for_each(|guest| guest.join().expect("guest ends"));
    });
}
