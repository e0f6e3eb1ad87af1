//! NRI's trunk: two logical connections in one stream, as frames of an eight-byte header (connection
//! id and payload length, big-endian) and a payload. A frame's end means nothing: what is inside is
//! a stream of bytes.

use super::error::WireError;

/// Bytes of a frame's header.
const HEADER: usize = 8;
/// Longest payload that a runtime's multiplexer makes: a whole ttrpc message with its header.
const LONGEST_PAYLOAD: u32 = (4 << 20) + 10;
/// Longest payload that is written. The runtime's end hands each payload to a reader with a buffer
/// of this size, and gives up on one that does not fit.
const LONGEST_WRITTEN: usize = 4096;

/// One of the trunk's logical connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// The plugin is the server, the runtime calls.
    Plugin,
    /// The runtime is the server, the plugin calls.
    Runtime,
}

impl Channel {
    fn id(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }

    fn from_id(id: u32) -> Option<Self> {
        [Self::Plugin, Self::Runtime].into_iter().find(|channel| channel.id() == id)
    }
}

/// Appends `bytes` to `out`, in frames of `channel`.
pub(super) fn write(channel: Channel, bytes: &[u8], out: &mut Vec<u8>) {
    for payload in bytes.chunks(LONGEST_WRITTEN) {
        let length = u32::try_from(payload.len()).expect("a chunk is 4096 bytes at most");
        out.extend_from_slice(&channel.id().to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
    }
}

/// Takes the trunk apart. Keeps no payload: what came is passed on at once.
#[derive(Debug, Default)]
pub(super) struct Demux {
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    filled: usize,
    /// The frame under way, with the bytes that it still lacks.
    frame: Option<(Channel, usize)>,
}

impl Demux {
    /// Takes what came, and passes each payload's bytes to `deliver`, in order.
    ///
    /// # Errors
    /// If a frame is of no known connection or too long; the trunk is of no use then.
    pub(super) fn feed<'a>(
        &mut self,
        mut bytes: &'a [u8],
        mut deliver: impl FnMut(Channel, &'a [u8]),
    ) -> Result<(), WireError> {
        while !bytes.is_empty() {
            if let Some((channel, lacking)) = self.frame {
                let (payload, rest) = bytes.split_at(lacking.min(bytes.len()));
                deliver(channel, payload);
                bytes = rest;
                let lacking = lacking - payload.len();
                self.frame = (lacking > 0).then_some((channel, lacking));
                continue;
            }
            let (start, rest) = bytes.split_at((HEADER - self.filled).min(bytes.len()));
            for (slot, byte) in self.header.iter_mut().skip(self.filled).zip(start) {
                *slot = *byte;
            }
            bytes = rest;
            self.filled += start.len();
            if self.filled == HEADER {
                self.filled = 0;
                self.frame = Some(open(self.header)?).filter(|(_, length)| *length > 0);
            }
        }
        Ok(())
    }
}

/// Reads a header.
fn open(header: [u8; HEADER]) -> Result<(Channel, usize), WireError> {
    let [a, b, c, d, e, f, g, h] = header;
    let (id, length) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    let channel = Channel::from_id(id).ok_or(WireError::Channel(id))?;
    if length > LONGEST_PAYLOAD {
        return Err(WireError::Length { length, longest: LONGEST_PAYLOAD });
    }
    let length = usize::try_from(length).expect("4 MiB fit a usize");
    Ok((channel, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What arrives of `stream` cut into pieces, per channel.
    fn take_apart(stream: &[u8], piece: usize) -> Result<[Vec<u8>; 2], WireError> {
        let mut demux = Demux::default();
        let mut got = [Vec::new(), Vec::new()];
        for bytes in stream.chunks(piece) {
            demux.feed(bytes, |channel, payload| match channel {
                Channel::Plugin => got[0].extend_from_slice(payload),
                Channel::Runtime => got[1].extend_from_slice(payload),
            })?;
        }
        Ok(got)
    }

    #[test]
    fn the_layout_is_that_of_the_wire() {
        let mut out = Vec::new();
        write(Channel::Runtime, b"abc", &mut out);
        assert_eq!(out, b"\0\0\0\x02\0\0\0\x03abc");
        write(Channel::Plugin, b"", &mut out);
        assert_eq!(out.len(), 11, "nothing to say is no frame");
    }

    #[test]
    fn a_long_message_is_cut_to_what_the_other_end_reads_at_once() {
        let mut out = Vec::new();
        write(Channel::Plugin, &[7; 4097], &mut out);
        assert_eq!(&out[..8], b"\0\0\0\x01\0\0\x10\0");
        assert_eq!(&out[8 + 4096..], b"\0\0\0\x01\0\0\0\x01\x07");
    }

    #[test]
    fn foreign_connections_and_lengths_are_refused_at_the_header() {
        for id in [0_u32, 3, u32::MAX] {
            let header = [id.to_be_bytes(), [0; 4]].concat();
            assert_eq!(take_apart(&header, 3), Err(WireError::Channel(id)));
        }
        let longest = LONGEST_PAYLOAD;
        let header = |length: u32| [1_u32.to_be_bytes(), length.to_be_bytes()].concat();
        assert_eq!(take_apart(&header(longest), 8), Ok([vec![], vec![]]));
        let length = longest + 1;
        assert_eq!(take_apart(&header(length), 8), Err(WireError::Length { length, longest }));
    }

    #[test]
    fn an_empty_frame_is_passed_over() {
        let stream = b"\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x01x";
        assert_eq!(take_apart(stream, 1), Ok([vec![], b"x".to_vec()]));
    }

    fn channel() -> impl Strategy<Value = Channel> {
        prop_oneof![Just(Channel::Plugin), Just(Channel::Runtime)]
    }

    proptest! {
        #[test]
        fn what_is_written_arrives_however_it_is_cut(
            messages in prop::collection::vec(
                (channel(), prop::collection::vec(any::<u8>(), 0..9000)), 0..8),
            piece in 1_usize..5000,
        ) {
            let mut stream = Vec::new();
            let mut sent = [Vec::new(), Vec::new()];
            for (channel, bytes) in &messages {
                write(*channel, bytes, &mut stream);
                sent[usize::from(*channel == Channel::Runtime)].extend_from_slice(bytes);
            }
            prop_assert_eq!(take_apart(&stream, piece), Ok(sent));
        }

        #[test]
        fn garbage_never_panics_and_delivers_no_more_than_came(
            stream in prop::collection::vec(prop_oneof![4 => 0_u8..3, 1 => any::<u8>()], 0..300),
            piece in 1_usize..20,
        ) {
            if let Ok(got) = take_apart(&stream, piece) {
                prop_assert!(got[0].len() + got[1].len() <= stream.len());
            }
        }
    }
}
