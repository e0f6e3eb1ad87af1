//! Chains of iptables' legacy variant, which nftables does not show: read with the calls that
//! `iptables -L` makes (`linux/netfilter_ipv4/ip_tables.h`, `linux/netfilter_ipv6/ip6_tables.h`).
//!
//! A table is only asked for if it is there: the kernel would make a missing one to answer.
#![expect(unsafe_code, reason = "system calls, each with its argument")]

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use crate::dataplane::netlink::nftables::{Chain, Table};

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: libc::c_int = 65;
/// Bytes of `struct ipt_getinfo`: name, hooks, two times five offsets, entries, size.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// Where the entries begin in `struct ipt_get_entries`: name, size, and room to align them.
const ENTRIES: usize = 40;
/// Bytes of `struct xt_entry_target`, which an error target's own name follows.
const TARGET: usize = 32;
/// `XT_ERROR_TARGET`: in front of each chain that users made, with the chain's name.
const ERROR: &str = "ERROR";
/// How often a table that grows between the two calls is asked for.
const ATTEMPTS: u32 = 8;

/// Why the chains cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the chains of {variant}; CAP_NET_ADMIN is needed")]
pub(super) struct LegacyError {
    variant: &'static str,
    #[source]
    source: io::Error,
}

/// One of the two variants.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    /// Tables that are there, one a line; missing without the kernel's module.
    tables: &'static str,
    level: libc::c_int,
    /// Any address of the family.
    any: SocketAddr,
    /// Where an entry says where its target and the next entry are: after the match on the header,
    /// of 84 and 136 bytes, and a cache word.
    offsets: usize,
}

const VARIANTS: [Variant; 2] = [
    Variant {
        name: "iptables-legacy",
        tables: "/proc/thread-self/net/ip_tables_names",
        level: libc::SOL_IP,
        any: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        offsets: 88,
    },
    Variant {
        name: "ip6tables-legacy",
        tables: "/proc/thread-self/net/ip6_tables_names",
        level: libc::SOL_IPV6,
        any: SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        offsets: 140,
    },
];

/// The chains that users made, in every table that is there.
pub(super) fn chains() -> Result<Vec<Chain>, LegacyError> {
    let mut chains = Vec::new();
    for variant in VARIANTS {
        let failed = |source| LegacyError { variant: variant.name, source };
        let tables = match fs::read_to_string(variant.tables) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            tables => tables.map_err(failed)?,
        };
        for table in tables.lines().filter(|name| !name.is_empty() && name.len() < NAME) {
            let place = Table { family: variant.name, name: table.to_owned() };
            let names = parse(&entries(&variant, table).map_err(failed)?, variant.offsets);
            chains.extend(names.into_iter().map(|name| Chain { table: place.clone(), name }));
        }
    }
    Ok(chains)
}

/// The bytes of a table.
fn entries(variant: &Variant, table: &str) -> io::Result<Vec<u8>> {
    // Any socket of the family will do, and this one needs no privilege of its own.
    let socket = UdpSocket::bind(variant.any)?;
    for _ in 0..ATTEMPTS {
        let mut info = request(table, INFO);
        get(&socket, variant.level, GET_INFO, &mut info)?;
        let size = info.get(INFO - 4..).and_then(|last| last.first_chunk().copied());
        let size = size.unwrap_or_default();
        let mut bytes = request(table, ENTRIES + u32::from_ne_bytes(size) as usize);
        bytes.splice(NAME..NAME + 4, size);
        match get(&socket, variant.level, GET_ENTRIES, &mut bytes) {
            Ok(()) => return Ok(bytes.split_off(ENTRIES)),
            // It has another size by now.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// A buffer of this size with the table's name at its beginning.
fn request(table: &str, size: usize) -> Vec<u8> {
    let mut bytes = table.as_bytes().to_vec();
    bytes.resize(size, 0);
    bytes
}

fn get(socket: &UdpSocket, level: i32, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the descriptor is open as long as `socket`; the kernel writes at most `length` bytes
    // to the buffer, which has as many and lives through the call.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Names of the chains that users made, from a table's entries. Total: whatever the bytes are, the
/// well-formed part is read.
fn parse(entries: &[u8], offsets: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = entries;
    while let (Some(target), Some(next)) = (offset(rest, offsets), offset(rest, offsets + 2)) {
        let named = |at: usize| rest.get(target + at..).map(text);
        // After the size of the target its name; after all of its header the chain's name.
        if named(2).as_deref() == Some(ERROR)
            && let Some(chain) = named(TARGET)
            // The mark at the end of the table.
            && chain != ERROR
        {
            names.push(chain);
        }
        // An entry cannot be shorter than its own header: nothing could be read after it.
        match rest.get(next..) {
            Some(after) if next > offsets => rest = after,
            _ => break,
        }
    }
    names
}

/// A 16-bit number of the kernel's byte order.
fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().copied().map(|two| usize::from(u16::from_ne_bytes(two)))
}

/// Text up to a zero byte, or to the most that a chain's name can have.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..bytes.len().min(NAME - 2)).unwrap_or_default();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An entry whose target has this name, and after it this one.
    fn entry(offsets: usize, target: &str, chain: &str) -> Vec<u8> {
        // Header, then offsets, a word and two counters.
        let header = (offsets + 8).next_multiple_of(8) + 16;
        let length = header + TARGET + NAME;
        let mut bytes = vec![0; length];
        let mut put = |at: usize, what: &[u8]| {
            bytes.splice(at..at + what.len(), what.iter().copied());
        };
        put(offsets, &u16::try_from(header).unwrap().to_ne_bytes());
        put(offsets + 2, &u16::try_from(length).unwrap().to_ne_bytes());
        put(header + 2, target.as_bytes());
        put(header + TARGET, chain.as_bytes());
        bytes
    }

    #[test]
    fn chains_of_users_are_told_from_rules_and_from_the_end() {
        for Variant { offsets, .. } in VARIANTS {
            let table = [
                entry(offsets, "", "\u{1}"),
                entry(offsets, ERROR, "KUBE-NWPLCY-ABCDEFGHIJKLMNOPQ"),
                entry(offsets, "REJECT", "KUBE-NWPLCY-NO-CHAIN"),
                entry(offsets, ERROR, "cali-pi-x"),
                entry(offsets, ERROR, ERROR),
            ]
            .concat();
            let names = parse(&table, offsets);
            assert_eq!(names, ["KUBE-NWPLCY-ABCDEFGHIJKLMNOPQ", "cali-pi-x"]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            for Variant { offsets, .. } in VARIANTS {
                // Each takes a part of its own of the bytes.
                prop_assert!(parse(&bytes, offsets).len() <= bytes.len() / offsets);
            }
        }
    }
}
