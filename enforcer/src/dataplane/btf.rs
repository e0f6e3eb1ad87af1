//! Where fields are in the running kernel's structures, from its type information
//! (`Documentation/bpf/btf.rst`).

use std::{fs, io, path::Path};

/// The kernel's own.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type`, of `struct btf_member`.
const TYPE: usize = 12;
const MEMBER: usize = 12;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Structures without a name inside each other, at most.
const DEPTH: u32 = 8;

/// Reads where these fields of a structure begin, bytes.
pub(super) fn offsets<const N: usize>(
    path: &Path,
    structure: &str,
    fields: [&str; N],
) -> io::Result<[u32; N]> {
    let data = fs::read(path)?;
    let unknown = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
    let types = Types::parse(&data).ok_or_else(|| unknown("not type information of this kind"))?;
    let id = types
        .find(structure)
        .ok_or_else(|| unknown(&format!("no structure {structure} is described")))?;
    let mut offsets = [0; N];
    for (offset, field) in offsets.iter_mut().zip(fields) {
        *offset = types
            .field(id, field, DEPTH)
            .ok_or_else(|| unknown(&format!("{structure} has no field {field}")))?;
    }
    Ok(offsets)
}

/// The types of a file, by where they are in it.
struct Types<'a> {
    data: &'a [u8],
    strings: &'a [u8],
    /// Of the type with this index plus 1.
    places: Vec<usize>,
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// How many bytes follow a type of this kind.
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Pointers, forward declarations, names, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => count.checked_mul(12)?,
        // Enumerations and prototypes.
        6 | 13 => count.checked_mul(8)?,
        _ => return None,
    })
}

impl<'a> Types<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let magic = data.get(..2)?.try_into().ok().map(u16::from_ne_bytes)?;
        if magic != MAGIC {
            return None;
        }
        let at = |offset| word(data, offset).map(|word| word as usize);
        let header = at(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            data.get(start..start.checked_add(length)?)
        };
        let types = section(at(8)?, at(12)?)?;
        let strings = section(at(16)?, at(20)?)?;
        let (mut places, mut place) = (Vec::new(), 0);
        while place < types.len() {
            places.push(place);
            let info = word(types, place + 4)?;
            place = place.checked_add(TYPE)?.checked_add(tail(kind(info), count(info))?)?;
        }
        Some(Self { data: types, strings, places })
    }

    fn is_called(&self, at: usize, name: &str) -> bool {
        let found = word(self.data, at).and_then(|offset| self.strings.get(offset as usize..));
        found
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The structure of a name.
    fn find(&self, name: &str) -> Option<usize> {
        self.places.iter().copied().find(|place| {
            word(self.data, place + 4).is_some_and(|info| kind(info) == KIND_STRUCT)
                && self.is_called(*place, name)
        })
    }

    /// Where a field begins, bytes; also one of a member without a name.
    fn field(&self, place: usize, name: &str, depth: u32) -> Option<u32> {
        let info = word(self.data, place + 4)?;
        if !matches!(kind(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        (0..count(info)).find_map(|index| {
            let member = place + TYPE + index * MEMBER;
            let id = word(self.data, member + 4)?;
            let offset = word(self.data, member + 8)?;
            // With the flag, the upper byte is the width of a bit field.
            let (bits, width) =
                if info >> 31 == 0 { (offset, 0) } else { (offset & 0xff_ffff, offset >> 24) };
            if width == 0 && bits % 8 == 0 && self.is_called(member, name) {
                return Some(bits / 8);
            }
            if depth == 0 || !self.is_called(member, "") {
                return None;
            }
            let inner = *self.places.get((id as usize).checked_sub(1)?)?;
            self.field(inner, name, depth - 1)?.checked_add(bits / 8)
        })
    }
}

const fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

const fn count(info: u32) -> usize {
    (info & 0xffff) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int a; struct { int b; union { int c; int d : 3; }; }; }`
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0d\0";
        let words: Vec<u32> = [
            // 1: int.
            vec![1, 1 << 24, 4, 32],
            // 2: the union, with widths of bit fields.
            vec![0, 1 << 31 | 5 << 24 | 2, 4, 15, 1, 0, 17, 1, 3 << 24],
            // 3: the structure in it.
            vec![0, 4 << 24 | 2, 8, 13, 1, 0, 0, 2, 32],
            // 4: the outer one.
            vec![5, 4 << 24 | 2, 12, 11, 1, 0, 0, 3, 32],
        ]
        .concat();
        let types: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        let length = u32::try_from(types.len()).unwrap();
        let sections = [24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        data.extend(sections.into_iter().flat_map(u32::to_ne_bytes));
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn fields_are_found_in_members_without_a_name_and_bit_fields_are_not() {
        let data = sample();
        let types = Types::parse(&data).unwrap();
        let outer = types.find("outer").unwrap();
        let at = |name| types.field(outer, name, DEPTH);
        assert_eq!([at("a"), at("b"), at("c"), at("d")], [Some(0), Some(4), Some(8), None]);
        assert_eq!(types.find("out"), None);
        assert_eq!(types.find("int"), None, "no structure");
    }

    #[test]
    fn the_running_kernel_describes_its_packets() {
        let fields = ["tc_index", "data", "len", "data_len"];
        let [index, data, len, data_len] = offsets(Path::new(VMLINUX), "sk_buff", fields).unwrap();
        assert_eq!((index % 2, data % 8, len % 4), (0, 0, 0));
        assert_eq!(data_len, len + 4);
        let error = offsets(Path::new(VMLINUX), "sk_buff", ["no_such"]).unwrap_err();
        assert!(error.to_string().contains("no_such"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(
            cut in 0_usize..200,
            changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
        ) {
            let mut data = sample();
            for (at, byte) in changes {
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            data.truncate(data.len().saturating_sub(cut));
            if let Some(types) = Types::parse(&data) {
                for place in types.places.clone() {
                    types.field(place, "c", DEPTH);
                }
            }
        }
    }
}
