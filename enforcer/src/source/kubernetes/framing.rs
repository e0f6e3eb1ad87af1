//! Where one object ends and the next begins, in answers that are never held as a whole: the lines
//! of a watch and the items of a list. Pure: bytes in, pieces out.

/// No object of Kubernetes is nearly as large (etcd takes 1.5 MiB).
const MOST: usize = 16 << 20;

/// What cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("an object of more than {} MiB", MOST >> 20)]
    TooLarge,
    #[error("brackets that do not match")]
    Unbalanced,
    #[error("an end in the middle of an object")]
    Unfinished,
}

/// The lines of a watch.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no line end was found.
    seen: usize,
}

impl Lines {
    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line that is complete.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, FramingError> {
        loop {
            let Some(length) = self.buffer[self.seen..].iter().position(|byte| *byte == b'\n')
            else {
                self.seen = self.buffer.len();
                let open = self.seen - self.start;
                return if open > MOST { Err(FramingError::TooLarge) } else { Ok(None) };
            };
            let (start, end) = (self.start, self.seen + length);
            self.seen = end + 1;
            self.start = self.seen;
            if !self.buffer[start..end].trim_ascii().is_empty() {
                return Ok(Some(&self.buffer[start..end]));
            }
        }
    }
}

/// Where in a list the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Around the items.
    Outside,
    /// Between two items.
    Between,
    /// In an item that began at this place of the buffer.
    Inside(usize),
}

/// The items of a list.
#[derive(Debug)]
pub(super) struct Items {
    buffer: Vec<u8>,
    /// The next byte to look at.
    at: usize,
    place: Place,
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The last text at the outermost level: the key, once its colon is there.
    text: Vec<u8>,
    /// Everything but the items.
    rest: Vec<u8>,
}

impl Items {
    pub(super) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            place: Place::Outside,
            depth: 0,
            in_text: false,
            escaped: false,
            text: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let done = match self.place {
            Place::Inside(start) => start,
            Place::Outside | Place::Between => self.at,
        };
        self.buffer.drain(..done);
        self.at -= done;
        if let Place::Inside(start) = &mut self.place {
            *start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item that is complete.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, FramingError> {
        while let Some(byte) = self.buffer.get(self.at).copied() {
            let at = self.at;
            self.at += 1;
            if self.place == Place::Outside {
                self.rest.push(byte);
            }
            if self.in_text {
                self.text(byte);
                continue;
            }
            match byte {
                b'"' => {
                    self.in_text = true;
                    self.text.clear();
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    match self.place {
                        Place::Between => self.place = Place::Inside(at),
                        Place::Outside if byte == b'[' && self.depth == 2 => {
                            if self.text == b"items" {
                                self.place = Place::Between;
                            }
                        }
                        Place::Outside | Place::Inside(_) => {}
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.checked_sub(1).ok_or(FramingError::Unbalanced)?;
                    match self.place {
                        Place::Inside(start) if self.depth == 2 => {
                            self.place = Place::Between;
                            return Ok(Some(&self.buffer[start..self.at]));
                        }
                        Place::Between => {
                            self.place = Place::Outside;
                            self.rest.push(byte);
                        }
                        Place::Outside | Place::Inside(_) => {}
                    }
                }
                _ => {}
            }
        }
        let open = self.buffer.len() + self.rest.len();
        if open > 2 * MOST { Err(FramingError::TooLarge) } else { Ok(None) }
    }

    fn text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_text = false,
            _ => {
                if self.depth == 1 {
                    self.text.push(byte);
                }
            }
        }
    }

    /// The list without its items, once the answer has ended.
    pub(super) fn finish(self) -> Result<Vec<u8>, FramingError> {
        if self.depth > 0 || self.in_text || self.rest.is_empty() {
            return Err(FramingError::Unfinished);
        }
        Ok(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next().unwrap() {
                out.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        out
    }

    fn items(pieces: &[&[u8]]) -> Result<(Vec<String>, String), FramingError> {
        let mut items = Items::new();
        let mut out = Vec::new();
        for piece in pieces {
            items.push(piece);
            while let Some(item) = items.next()? {
                out.push(String::from_utf8(item.to_vec()).unwrap());
            }
        }
        Ok((out, String::from_utf8(items.finish()?).unwrap()))
    }

    /// `text` cut into pieces of these lengths.
    fn cut<'a>(text: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    const LIST: &str = "{\"kind\":\"PodList\",\"metadata\":{\"items\":[1],\"a\":\"]}\\\"\"},\
                        \"items\": [ {\"a\":{\"items\":[{}]}} , {\"b\":\"x\\\\\\\"}]\"},\n{}],\
                        \"more\":[[]]}\n";

    #[test]
    fn a_list_is_its_items_and_the_rest() {
        let (found, rest) = items(&[LIST.as_bytes()]).unwrap();
        assert_eq!(found, ["{\"a\":{\"items\":[{}]}}", "{\"b\":\"x\\\\\\\"}]\"}", "{}"]);
        let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
        assert_eq!(rest["items"], serde_json::json!([]));
        assert_eq!(rest["more"], serde_json::json!([[]]));
    }

    #[test]
    fn what_is_cut_off_or_unbalanced_is_no_list() {
        let text = LIST.trim_end();
        for end in 0..text.len() {
            assert_eq!(items(&[&text.as_bytes()[..end]]), Err(FramingError::Unfinished), "{end}");
        }
        assert_eq!(items(&[b"{}}"]), Err(FramingError::Unbalanced));
    }

    #[test]
    fn lists_without_items_are_lists() {
        for text in ["{\"items\":[]}", "{\"items\":null}", "{}"] {
            let (found, rest) = items(&[text.as_bytes()]).unwrap();
            assert_eq!((found.len(), rest.as_str()), (0, text));
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MOST + 1]);
        assert_eq!(lines.next(), Err(FramingError::TooLarge));
        let mut items = Items::new();
        items.push(b"{\"items\":[\"");
        items.push(&vec![b'x'; 2 * MOST + 1]);
        assert_eq!(items.next(), Err(FramingError::TooLarge));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(lengths in prop::collection::vec(1_usize..40, 1..8)) {
            let whole = items(&[LIST.as_bytes()]);
            prop_assert_eq!(items(&cut(LIST.as_bytes(), &lengths)), whole);
            let text = b"one\n\n \ntwo\r\nthree\nnever ended";
            prop_assert_eq!(lines(&cut(text, &lengths)), vec!["one", "two\r", "three"]);
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut items = Items::new();
            items.push(&bytes);
            while let Ok(Some(_)) = items.next() {}
            let mut lines = Lines::default();
            lines.push(&bytes);
            while let Ok(Some(_)) = lines.next() {}
        }
    }
}
