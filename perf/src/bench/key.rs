//! Case keys: building, printing and parsing `frame.alloc/order=0,mem=local,cores=1` without allocating.

use core::fmt::{self, Write};

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Num(u64),
    /// A word of lower-case letters, digits, `.`, `-` and `_`.
    Word(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(number) => number.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// Most parameters a case can have.
const MAX_PARAMS: usize = 6;

/// The parameters of a case, in the order of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    items: [(&'static str, Value); MAX_PARAMS],
    len: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self::new()
    }
}

impl Params {
    /// No parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self { items: [("", Value::Num(0)); MAX_PARAMS], len: 0 }
    }

    /// The parameters with one more at the end.
    ///
    /// # Panics
    /// With more parameters than a case can have, an error of whoever wrote the row.
    #[must_use]
    pub const fn with(mut self, name: &'static str, value: Value) -> Self {
        assert!(self.len < MAX_PARAMS, "P5: a case has at most six parameters");
        self.items[self.len] = (name, value);
        self.len += 1;
        self
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        self.items.iter().take(self.len).copied()
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The value of a parameter that is a number.
    #[must_use]
    pub fn num(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Num(number) => Some(number),
            Value::Word(_) => None,
        }
    }

    /// The value of a parameter that is a word.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&'static str> {
        match self.get(name)? {
            Value::Word(word) => Some(word),
            Value::Num(_) => None,
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// The name of a case. Prints as `id`, or `id/name=value,name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseKey<'a> {
    /// The row.
    pub id: &'a str,
    /// The parameters.
    pub params: &'a Params,
}

/// A key as text.
pub type KeyText = Text<160>;

impl CaseKey<'_> {
    /// The key as text; `None` if it is longer than any key may be.
    #[must_use]
    pub fn text(&self) -> Option<KeyText> {
        Text::of(format_args!("{self}"))
    }
}

impl fmt::Display for CaseKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)?;
        if self.params.len > 0 {
            write!(f, "/{}", self.params)?;
        }
        Ok(())
    }
}

/// A case key read back from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedKey<'a> {
    id: &'a str,
    params: &'a str,
}

impl<'a> ParsedKey<'a> {
    /// Reads a key; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, params) = match text.split_once('/') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (text, ""),
        };
        let key = Self { id, params };
        let fine = is_word(id) && key.pairs().all(|pair| pair.is_some_and(|(n, v)| is_word(n) && is_word(v)));
        fine.then_some(key)
    }

    /// The row.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// The parameters as text, `name=value,name=value`.
    #[must_use]
    pub fn params_text(&self) -> &'a str {
        self.params
    }

    /// The parameters in order.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.pairs().flatten()
    }

    fn pairs(&self) -> impl Iterator<Item = Option<(&'a str, &'a str)>> {
        self.params.split(',').filter(|_| !self.params.is_empty()).map(|pair| pair.split_once('='))
    }
}

/// Whether a text can be a row id, a parameter name or a parameter value.
pub(super) fn is_word(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    !text.is_empty() && text.bytes().all(fine)
}

/// Text of at most `N` bytes, held in place.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// The formatted text; `None` if it does not fit.
    #[must_use]
    pub fn of(arguments: fmt::Arguments<'_>) -> Option<Self> {
        let mut text = Self::new();
        text.write_fmt(arguments).ok().map(|()| text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only whole `str`s are ever appended, so this never takes the default.
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room =
            self.bytes.get_mut(self.len..).and_then(|rest| rest.get_mut(..more.len())).ok_or(fmt::Error)?;
        room.copy_from_slice(more.as_bytes());
        self.len += more.len();
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
