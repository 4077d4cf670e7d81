//! Capabilities as programs see them: handles, rights, kinds of objects.

/// A capability of a process: place of its slot in the low half, the slot's generation in the high half, so that a handle that was
/// deleted stays invalid when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Handle(pub u64);

impl Handle {
    /// Names nothing: generation 0 is never in use.
    pub const NONE: Self = Self(0);

    /// The handle of a slot.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }

    /// The slot's number.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The slot's generation.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a capability allows: a set of bits that only ever shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Rights(pub u16);

impl Rights {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Look at it, and wait for its end.
    pub const OBSERVE: Self = Self(1 << 0);
    /// Start, stop, end, schedule or configure it.
    pub const CONTROL: Self = Self(1 << 1);
    /// Make threads or child processes in it.
    pub const CREATE: Self = Self(1 << 2);
    /// Map into it, or map it.
    pub const MAP: Self = Self(1 << 3);
    /// Write to it.
    pub const WRITE: Self = Self(1 << 4);
    /// Make further capabilities from it, or hand it on.
    pub const GRANT: Self = Self(1 << 5);
    /// Send messages to it, or signal it.
    pub const SEND: Self = Self(1 << 6);
    /// Receive what is sent to it, or wait for its signals.
    pub const RECEIVE: Self = Self(1 << 7);
    /// Everything.
    pub const ALL: Self = Self(0xff);

    /// Whether every right of `other` is here.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

macro_rules! kinds {
    ($( $(#[doc = $text:literal])* $number:literal $variant:ident $word:literal; )*) => {
        /// What a capability is for. 0 is no kind: an empty slot.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ObjectKind { $( $(#[doc = $text])* $variant = $number ),* }

        impl ObjectKind {
            /// Every kind, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The kind of a number.
            #[must_use]
            pub const fn decode(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The word of dumps and of the manual.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

kinds! {
    /// A process: an address space, a capability table, threads.
    1 Process "process";
    /// A thread.
    2 Thread "thread";
    /// Memory that several processes can map.
    3 Region "region";
    /// A core of the machine.
    4 Core "core";
    /// The debug interface: log, dumps, traces, metrics.
    5 Debug "debug";
    /// Where messages are sent to and received from.
    6 Endpoint "endpoint";
    /// A caller that waits for a reply, once.
    7 Reply "reply";
    /// A word of bits that can be set and waited for.
    8 Notification "notification";
    /// Signals a notification at a time.
    9 Timer "timer";
    /// An interrupt line.
    10 Interrupt "interrupt";
    /// All interrupt lines: what single ones are made of.
    11 Interrupts "interrupts";
    /// A range of I/O ports.
    12 Ports "ports";
    /// Device registers: what regions of them are made of.
    13 Devices "devices";
    /// A quota of memory, objects and capabilities.
    14 Bank "bank";
    /// Something that one owner has for a time.
    15 Lease "lease";
}

/// What `cap_info` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct CapInfo {
    /// Number of the [`ObjectKind`].
    pub kind: u32,
    /// The [`Rights`].
    pub rights: u32,
    /// The word that its maker gave it.
    pub badge: u64,
}

const _: () = assert!(size_of::<Handle>() == 8 && size_of::<Rights>() == 2 && size_of::<CapInfo>() == 16);
