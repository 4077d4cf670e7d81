//! Epochs, and the word in which a core announces where it stands: pure values.

/// A number of the global epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(super) struct Epoch(u64);

impl Epoch {
    /// The epoch at boot.
    pub(super) const FIRST: Self = Self(0);

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    /// The epoch after this one. At a step per nanosecond the word lasts for centuries.
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// When a moment in this epoch is past (E5).
    pub(super) const fn past(self) -> Self {
        Self(self.0 + 2)
    }

    /// When an object ripens that a core at this epoch retires (E2).
    pub(super) const fn ripe(self) -> Self {
        Self(self.0 + 3)
    }
}

/// Epoch and activity of a core: bit 0 says "idle", the rest is the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    const IDLE_BIT: u64 = 1;

    /// The core holds no reference until it says otherwise.
    pub(super) const IDLE: Self = Self(Self::IDLE_BIT);

    /// The core has left the kernel with this epoch in sight.
    pub(super) const fn active(epoch: Epoch) -> Self {
        Self(epoch.0 << 1)
    }

    /// The announced epoch.
    pub(super) const fn epoch(self) -> Epoch {
        Epoch(self.0 >> 1)
    }

    /// Whether the core does not stand in the way of leaving `epoch`.
    pub(super) const fn permits_leaving(self, epoch: Epoch) -> bool {
        self.0 & Self::IDLE_BIT != 0 || self.0 >> 1 == epoch.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, Word};

    #[test]
    fn only_idle_cores_and_those_at_the_epoch_permit_leaving_it() {
        for announced in 0..8 {
            let word = Word::active(Epoch(announced));
            assert_eq!(word.epoch(), Epoch(announced));
            for epoch in 0..8 {
                assert_eq!(word.permits_leaving(Epoch(epoch)), announced == epoch);
                assert!(Word::IDLE.permits_leaving(Epoch(epoch)));
            }
        }
    }
}
