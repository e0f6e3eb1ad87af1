//! Canonical bytes of selectors and CIDRs: equal content has equal bytes in every process, so
//! that what is hashed over them has the same number after a restart.

/// Bytes in which no two different contents collide: every string is preceded by its length.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// A variant's or operator's number.
    pub(crate) fn tag(&mut self, tag: u8) {
        self.bytes.push(tag);
    }

    /// A number; fixed width.
    pub(crate) fn number(&mut self, number: usize) {
        self.bytes.extend_from_slice(&(number as u64).to_be_bytes());
    }

    /// A string, after its length.
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// The bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
