//! The netlink wire format: message headers, attributes, requests.
//!
//! Reading is total: whatever the bytes are, an iterator yields the well-formed part and ends.
//! Lengths and layouts are those of `include/uapi/linux/netlink.h`.

/// Bytes of `struct nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`: no part of an attribute's type.
const TYPE_FLAGS: u16 = 0xc000;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NLMSG_ERROR`: an acknowledgement if its code is 0.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(super) const DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 4;
/// `NLM_F_ECHO`: without it the kernel tells the answer to those who listen for changes only.
pub(super) const ECHO: u16 = 8;
/// `NLM_F_DUMP_INTR`: the list changed while it was read.
pub(super) const INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// `nlmsg_type`.
    pub(super) kind: u16,
    /// `nlmsg_flags`.
    pub(super) flags: u16,
    /// `nlmsg_seq`.
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram.
#[derive(Debug)]
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let payload = self.0.get(MESSAGE_HEADER..length)?;
        let message = Message {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            sequence: u32_at(self.0, 8)?,
            payload,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes of a message or of a nested attribute: type without flags, and value.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & !TYPE_FLAGS;
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The attributes after a fixed header of `skip` bytes.
    pub(super) fn after(payload: &'a [u8], skip: usize) -> Self {
        Self(payload.get(skip..).unwrap_or_default())
    }

    /// The value of the first attribute of this type.
    pub(super) fn find(mut self, wanted: u16) -> Option<&'a [u8]> {
        self.find_map(|(kind, value)| (kind == wanted).then_some(value))
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A 16-bit number in host order.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

/// A 32-bit number in host order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

/// A signed 32-bit number in host order.
pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

/// A 64-bit number in host order.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

/// A 16-bit number in network order.
pub(super) fn be16(bytes: &[u8]) -> Option<u16> {
    array_at(bytes, 0).map(u16::from_be_bytes)
}

/// A 32-bit number in network order.
pub(super) fn be32(bytes: &[u8]) -> Option<u32> {
    array_at(bytes, 0).map(u32::from_be_bytes)
}

/// Text, up to its first zero byte. Interface names are bytes to the kernel: what is no UTF-8
/// is replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// A request under construction.
#[derive(Clone, Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of this type, with `header` as its fixed part (a multiple of 4 bytes).
    pub(super) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; MESSAGE_HEADER];
        // Length, sequence and port are written when it is sent.
        bytes.splice(4..6, kind.to_ne_bytes());
        bytes.splice(6..8, (flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(header);
        Self { bytes }
    }

    /// Appends an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // Every value here is a few bytes.
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute that holds the attributes of `inner`, a request without header.
    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        let value = inner.bytes.get(MESSAGE_HEADER..).unwrap_or_default().to_vec();
        self.attribute(kind | NESTED, &value)
    }

    /// The message, ready to send.
    pub(super) fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.splice(0..4, length.to_ne_bytes());
        self.bytes.splice(8..12, sequence.to_ne_bytes());
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_back() {
        let mut request = Request::new(18, DUMP, &[1, 2, 3, 4])
            .attribute(3, b"eth0\0")
            .nested(18, &Request::new(0, 0, &[]).attribute(1, b"veth\0").attribute(2, &[7]));
        let bytes = request.finish(9).to_vec();
        let mut messages = Messages(&bytes);
        let message = messages.next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (18, DUMP | REQUEST, 9));
        assert!(messages.next().is_none());
        let attributes = Attributes::after(message.payload, 4);
        assert_eq!(attributes.clone().find(3).map(text).as_deref(), Some("eth0"));
        let inner = Attributes(attributes.clone().find(18).unwrap());
        assert_eq!(inner.clone().find(1).map(text).as_deref(), Some("veth"));
        assert_eq!(inner.find(2), Some(&[7][..]));
        assert_eq!(attributes.find(4), None);
    }

    #[test]
    fn a_length_below_the_header_ends_the_iteration() {
        assert_eq!(Attributes(&[0, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(Attributes(&[3, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(Messages(&[0; 64]).count(), 0);
        // The last attribute need not be padded.
        assert_eq!(Attributes(&[5, 0, 1, 0, 9]).next(), Some((1, &[9][..])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let held: usize = Messages(&bytes).map(|m| MESSAGE_HEADER + m.payload.len()).sum();
            prop_assert!(held <= bytes.len());
            let held: usize = Attributes(&bytes).map(|(_, v)| ATTRIBUTE_HEADER + v.len()).sum();
            prop_assert!(held <= bytes.len());
        }
    }
}
