//! What a system call answers when it does not do what it was asked: by what the caller can do about it.

macro_rules! errors {
    ($( $(#[doc = $text:literal])* $number:literal $variant:ident $words:literal; )*) => {
        /// Why a call failed. In `rax`; 0 is success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u64)]
        pub enum Error { $( $(#[doc = $text])* $variant = $number ),* }

        impl Error {
            /// Every error, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The error that a status stands for; `None` for success and for numbers of no error.
            #[must_use]
            pub const fn decode(status: u64) -> Option<Self> {
                match status { $($number => Some(Self::$variant),)* _ => None }
            }

            /// A few words for people.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words),* }
            }

            /// The name, as in the manual.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),* }
            }
        }
    };
}

errors! {
    /// No call has this number.
    1 NoSuchCall "no such system call";
    /// The handle names no capability, or one that is gone.
    2 BadHandle "the handle names no capability";
    /// The capability is for another kind of object.
    3 WrongType "the capability is for another kind of object";
    /// The capability lacks a right that the call needs.
    4 MissingRight "the capability lacks a right";
    /// An argument has a value that means nothing here.
    5 BadArgument "an argument makes no sense";
    /// An address cannot be accessed as the call has to.
    6 BadAddress "an address cannot be accessed";
    /// Something is mapped in the range already.
    7 Occupied "the address range is occupied";
    /// Nothing suitable is mapped in the range.
    8 NotMapped "nothing suitable is mapped there";
    /// Memory or a quota is exhausted.
    9 NoMemory "memory is exhausted";
    /// No capability slot is free.
    10 NoSlot "no capability slot is free";
    /// The object is in a state in which this makes no sense: started twice, ended, busy.
    11 WrongState "the object's state does not allow it";
    /// The deadline has passed.
    12 TimedOut "timed out";
    /// The word did not hold the expected value.
    13 Mismatch "the word did not hold the expected value";
    /// The deadline could not be kept beside those already admitted.
    14 NotAdmitted "not admitted: the core's time is promised already";
    /// The image is not one that can be run; the value says why (`ImageFlaw`).
    15 BadImage "the image cannot be run";
    /// The machine or this kernel does not offer it.
    16 Unsupported "not supported here";
    /// Whoever should have received or answered is gone, or nobody can receive any more.
    17 PeerGone "whoever should have answered is gone";
    /// It would have to wait, which the caller does not want.
    18 WouldBlock "it would have to wait";
    /// A limit on the number of calls has been reached; it can be made again later.
    19 TooMany "a limit on calls has been reached";
    /// A filter does not let the process make this call.
    20 Filtered "a filter forbids this call";
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.words())
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn statuses_decode_to_what_they_were() {
        for &error in Error::ALL {
            assert_eq!(Error::decode(error as u64), Some(error));
            assert!(!error.words().is_empty());
        }
        assert_eq!(Error::decode(0), None);
    }
}
