//! Just enough of ELF to name an object's sections (System V gABI, "Sections").

/// Offset of `e_shoff`, `e_shentsize`, `e_shnum` and `e_shstrndx` in a 64-bit file's header.
const SHOFF: usize = 0x28;
const SHENTSIZE: usize = 0x3a;
const SHNUM: usize = 0x3c;
const SHSTRNDX: usize = 0x3e;
/// Offset of `sh_name`, `sh_offset` and `sh_size` in a 64-bit section header.
const SH_NAME: usize = 0;
const SH_OFFSET: usize = 0x18;
const SH_SIZE: usize = 0x20;

/// The names of all sections of a 64-bit little-endian file; `None` if it is not one.
pub(crate) fn section_names(file: &[u8]) -> Option<Vec<&[u8]>> {
    // Magic number, ELFCLASS64, ELFDATA2LSB.
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = offset(file, SHOFF)?;
    let entry = usize::from(u16::from_le_bytes(bytes(file, SHENTSIZE)?));
    let count = usize::from(u16::from_le_bytes(bytes(file, SHNUM)?));
    let names = usize::from(u16::from_le_bytes(bytes(file, SHSTRNDX)?));
    let header = |index: usize| table.checked_add(index.checked_mul(entry)?);
    // A file that ends within its own table was not written whole.
    file.get(table..header(count)?)?;
    let strings_header = header(names)?;
    let start = offset(file, strings_header.checked_add(SH_OFFSET)?)?;
    let size = offset(file, strings_header.checked_add(SH_SIZE)?)?;
    let strings = file.get(start..start.checked_add(size)?)?;
    (0..count)
        .map(|index| {
            let at = u32::from_le_bytes(bytes(file, header(index)?.checked_add(SH_NAME)?)?);
            strings.get(usize::try_from(at).ok()?..)?.split(|byte| *byte == 0).next()
        })
        .collect()
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn offset(file: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes(file, at)?)).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file with these sections, and nothing in them; the last header is the names'.
    pub(crate) fn file(sections: &[&[u8]]) -> Vec<u8> {
        const HEADER: usize = 64;
        let mut strings = Vec::new();
        let mut headers = Vec::new();
        let add = |strings: &mut Vec<u8>, name: &[u8]| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(name);
            strings.push(0);
            let mut header = vec![0; HEADER];
            header[..4].copy_from_slice(&at.to_le_bytes());
            header
        };
        for name in sections {
            headers.push(add(&mut strings, name));
        }
        headers.push(add(&mut strings, b".shstrtab"));
        let names = headers.len() - 1;
        let size = u64::try_from(strings.len()).unwrap();
        headers[names][SH_OFFSET..SH_OFFSET + 8].copy_from_slice(&64_u64.to_le_bytes());
        headers[names][SH_SIZE..SH_SIZE + 8].copy_from_slice(&size.to_le_bytes());
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[SHOFF..SHOFF + 8].copy_from_slice(&(64 + size).to_le_bytes());
        for (at, value) in [(SHENTSIZE, HEADER), (SHNUM, headers.len()), (SHSTRNDX, names)] {
            file[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_le_bytes());
        }
        file.extend(strings);
        file.extend(headers.concat());
        file
    }

    #[test]
    fn sections_are_named() {
        let file = file(&[b"", b".text", b".BTF"]);
        let names = section_names(&file).unwrap();
        assert_eq!(names, [&b""[..], b".text", b".BTF", b".shstrtab"]);
    }

    #[test]
    fn no_prefix_of_a_file_is_read_past_its_end() {
        let file = file(&[b"", b".text", b".BTF"]);
        for length in 0..file.len() {
            assert_eq!(section_names(&file[..length]), None, "{length}");
        }
    }
}
