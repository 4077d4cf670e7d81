//! Quotas and leases: banks of memory and objects, limits on calls, things that are had for a time; and ways to pass pages.

/// A bank to be made: what it may spend at most, all of it also out of the bank that it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct BankSpec {
    /// Frames of memory that may be mapped or held in regions.
    pub frames: u64,
    /// Capabilities, threads, processes and other objects.
    pub objects: u64,
}

/// What `bank_info` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct BankInfo {
    /// What it may spend.
    pub limit: BankSpec,
    /// What it has spent, with what the banks made from it may spend.
    pub spent: BankSpec,
}

/// What `lease_info` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LeaseInfo {
    /// 1 while it has an owner.
    pub held: u64,
    /// When it ends, in ticks.
    pub deadline: u64,
    /// Ticks that are left; 0 without an owner.
    pub remaining: u64,
    /// The figure that it was given out with; what it means is its maker's.
    pub quality: u64,
    /// How often it was given out.
    pub turns: u64,
    /// How often it ended because its time was over.
    pub expired: u64,
}

/// Words of a filter: a bit for each call.
pub const FILTER_WORDS: usize = 2;

/// What a process may call, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Limits {
    /// Bit `n % 64` of word `n / 64`: call `n` may be made.
    pub calls: [u64; FILTER_WORDS],
    /// System calls a second; 0 for no limit. Up to as many at once as in a tenth of a second.
    pub calls_per_second: u64,
    /// Calls that pass messages a second; 0 for no limit.
    pub messages_per_second: u64,
}

impl Limits {
    /// No limit.
    pub const NONE: Self =
        Self { calls: [u64::MAX; FILTER_WORDS], calls_per_second: 0, messages_per_second: 0 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

const _: () = assert!(crate::ipc::FIRST as usize + crate::ipc::MESSAGE_CALLS.len() <= 64 * FILTER_WORDS);

/// How pages are given to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Passing {
    /// The giver has them no longer.
    Move = 0,
    /// Both see what either writes.
    Share = 1,
    /// Each gets a copy of what it writes to.
    CopyOnWrite = 2,
}

impl Passing {
    /// The way that a word stands for.
    #[must_use]
    pub const fn decode(word: u64) -> Option<Self> {
        match word {
            0 => Some(Self::Move),
            1 => Some(Self::Share),
            2 => Some(Self::CopyOnWrite),
            _ => None,
        }
    }
}

const _: () = {
    assert!(size_of::<BankSpec>() == 16 && size_of::<BankInfo>() == 32);
    assert!(size_of::<LeaseInfo>() == 48 && size_of::<Limits>() == 32);
};
