//! A position in the file that cannot leave it.

use super::{GgufError, malformed};

pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The next `count` bytes; `what` is named when they are not there.
    pub(crate) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let end = self.position.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.position..end)) {
            Some(taken) => {
                self.position += count;
                Ok(taken)
            }
            None => malformed(format!("the file ends at byte {} inside {what}", self.bytes.len())),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, GgufError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &str) -> Result<u16, GgufError> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A u64 that is a size in memory.
    pub(crate) fn size(&mut self, what: &str) -> Result<usize, GgufError> {
        let value = self.u64(what)?;
        usize::try_from(value).or_else(|_| malformed(format!("{what} is {value}, larger than memory can be")))
    }

    /// A text: its length in bytes as u64, then UTF-8.
    pub(crate) fn text(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let length = self.size(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).or_else(|_| malformed(format!("{what} is not UTF-8")))
    }
}
