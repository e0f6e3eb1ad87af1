//! ttrpc messages: a ten-byte header (length, stream, type, flags; numbers big-endian) before a
//! protobuf `Request` or `Response`. Only unary calls: NRI has no others.

use std::time::Duration;

use prost::Message;

use super::error::WireError;

/// Bytes of a message's header.
const HEADER: usize = 10;
/// Longest message, without its header; the protocol's own limit.
const LONGEST: u32 = 4 << 20;
/// Longest text of an error, bytes.
const LONGEST_TEXT: usize = 1024;

/// Message types.
pub(super) mod kind {
    /// Opens a stream.
    pub(in super::super) const REQUEST: u8 = 1;
    /// Ends a stream.
    pub(in super::super) const RESPONSE: u8 = 2;
    /// Data within a stream; a unary call has none.
    pub(in super::super) const DATA: u8 = 3;
}

/// Status codes, those of gRPC.
pub(super) mod code {
    /// The request makes no sense.
    pub(in super::super) const INVALID_ARGUMENT: i32 = 3;
    /// Too much at a time.
    pub(in super::super) const RESOURCE_EXHAUSTED: i32 = 8;
    /// The system is not in the state that the request needs.
    pub(in super::super) const FAILED_PRECONDITION: i32 = 9;
    /// No such method. Newer runtimes try an older method then.
    pub(in super::super) const UNIMPLEMENTED: i32 = 12;
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) stream: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// A call.
    pub(super) fn request(stream: u32, request: &Request) -> Self {
        Self { stream, kind: kind::REQUEST, flags: 0, payload: request.encode_to_vec() }
    }

    /// An answer.
    pub(super) fn response(stream: u32, response: &Response) -> Self {
        Self { stream, kind: kind::RESPONSE, flags: 0, payload: response.encode_to_vec() }
    }

    /// The message's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { stream, kind, flags, payload } = self;
        // Texts are cut and answers have few other fields; see `Status::new`.
        let length = u32::try_from(payload.len()).expect("messages are small");
        let mut out = Vec::with_capacity(HEADER + payload.len());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&[*kind, *flags]);
        out.extend_from_slice(payload);
        out
    }
}

/// Puts messages together from a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    buffer: Vec<u8>,
    /// Bytes at the buffer's start that have been taken.
    taken: usize,
}

impl Assembler {
    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// If its header announces more than the protocol allows, before any of that is kept.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h, kind, flags] = *header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > LONGEST {
            return Err(WireError::Length { length, longest: LONGEST });
        }
        let length = usize::try_from(length).expect("4 MiB fit a usize");
        let Some(payload) = body.get(..length) else {
            return Ok(None);
        };
        self.taken += HEADER + length;
        let stream = u32::from_be_bytes([e, f, g, h]);
        Ok(Some(Frame { stream, kind, flags, payload: payload.to_vec() }))
    }
}

/// A call. Metadata are not read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(string, tag = "1")]
    pub(super) service: String,
    #[prost(string, tag = "2")]
    pub(super) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) payload: Vec<u8>,
    /// How long the caller waits, ns; not positive: for ever.
    #[prost(int64, tag = "4")]
    pub(super) timeout_nano: i64,
}

impl Request {
    /// How long the caller waits for the answer, if it says so.
    pub(super) fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout_nano).ok().filter(|nano| *nano > 0).map(Duration::from_nanos)
    }
}

/// An answer: a status that is not 0, or a payload.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) payload: Vec<u8>,
}

impl Response {
    /// The call went well.
    pub(super) fn of(message: &impl Message) -> Self {
        Self { status: None, payload: message.encode_to_vec() }
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self { status: Some(status), payload: Vec::new() }
    }
}

/// How a call ended (`google.rpc.Status`, without details).
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

impl Status {
    /// A failure, with a text that may be cut.
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(LONGEST_TEXT));
        Self { code, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_that_of_the_wire() {
        let frame = Frame { stream: 258, kind: kind::RESPONSE, flags: 4, payload: b"ab".to_vec() };
        assert_eq!(frame.to_bytes(), b"\0\0\0\x02\0\0\x01\x02\x02\x04ab");
        let request = Request {
            service: "s".into(),
            method: "m".into(),
            payload: vec![9],
            timeout_nano: 2_000_000_000,
        };
        let bytes = b"\x0a\x01s\x12\x01m\x1a\x01\x09\x20\x80\xa8\xd6\xb9\x07";
        assert_eq!(request.encode_to_vec(), bytes);
        assert_eq!(request.timeout(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn no_time_out_is_none() {
        for timeout_nano in [0, -1, i64::MIN] {
            assert_eq!(Request { timeout_nano, ..Request::default() }.timeout(), None);
        }
    }

    #[test]
    fn what_is_announced_too_long_is_refused_before_it_comes() {
        let mut assembler = Assembler::default();
        assembler.push(&(LONGEST + 1).to_be_bytes());
        assembler.push(&[0, 0, 0, 1, 1, 0]);
        let refused = WireError::Length { length: LONGEST + 1, longest: LONGEST };
        assert_eq!(assembler.next(), Err(refused));
    }

    #[test]
    fn what_has_been_taken_is_not_kept() {
        let message = Frame { stream: 1, kind: kind::REQUEST, flags: 0, payload: vec![0; 5000] };
        let mut assembler = Assembler::default();
        for _ in 0..100 {
            assembler.push(&message.to_bytes());
            assert_eq!(assembler.next(), Ok(Some(message.clone())));
        }
        assert!(assembler.buffer.len() < 2 * 5010, "{}", assembler.buffer.len());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let status = Status::new(code::FAILED_PRECONDITION, "ä".repeat(1000) + "x");
        assert_eq!(status.message, "ä".repeat(512));
        let odd = Status::new(code::FAILED_PRECONDITION, "x".to_owned() + &"ä".repeat(1000));
        assert_eq!(odd.message.len(), 1023);
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let payload = prop::collection::vec(any::<u8>(), 0..3000);
        (any::<u32>(), any::<u8>(), any::<u8>(), payload)
            .prop_map(|(stream, kind, flags, payload)| Frame { stream, kind, flags, payload })
    }

    proptest! {
        #[test]
        fn messages_arrive_however_they_are_cut(
            frames in prop::collection::vec(frame(), 0..8),
            piece in 1_usize..4000,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
            let mut assembler = Assembler::default();
            let mut got = Vec::new();
            for bytes in stream.chunks(piece) {
                assembler.push(bytes);
                while let Some(frame) = assembler.next().unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn garbage_never_panics(
            stream in prop::collection::vec(prop_oneof![4 => 0_u8..2, 1 => any::<u8>()], 0..400),
        ) {
            let mut assembler = Assembler::default();
            assembler.push(&stream);
            while let Ok(Some(frame)) = assembler.next() {
                // Whatever it is, it is read as far as it goes.
                let _message = Request::decode(&*frame.payload);
            }
        }
    }
}
