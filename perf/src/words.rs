//! One table for an enum and the words that stand for it on the command line, in records and in file names.

macro_rules! words {
    ($($(#[$doc:meta])* $ty:ident { $($(#[$vdoc:meta])* $variant:ident $word:literal;)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $ty { $($(#[$vdoc])* #[serde(rename = $word)] $variant),* }

        impl $ty {
            /// Every value, in table order.
            pub const ALL: &'static [$ty] = &[$($ty::$variant),*];

            /// The word of records, keys and file names.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $($ty::$variant => $word),* }
            }

            /// The value a word stands for.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some($ty::$variant),)* _ => None }
            }
        }

        impl core::fmt::Display for $ty {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.word())
            }
        }
    )* };
}

pub(crate) use words;
