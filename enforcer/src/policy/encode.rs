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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::default();
        write(&mut encoder);
        encoder.finish()
    }

    #[test]
    fn the_bytes_are_the_same_after_a_restart() {
        let bytes = bytes(|encoder| {
            encoder.tag(7);
            encoder.number(0x0102);
            encoder.text("ab");
        });
        let expected = [7, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b'];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn strings_do_not_run_into_each_other() {
        let of =
            |texts: [&str; 2]| bytes(|encoder| texts.iter().for_each(|text| encoder.text(text)));
        assert_ne!(of(["ab", "c"]), of(["a", "bc"]));
        assert_ne!(of(["", "a"]), of(["a", ""]));
    }
}
