//! Just enough of ELF to name an object's sections and symbols (System V gABI, "Sections" and
//! "Symbol Table").

/// Offset of `e_shoff`, `e_shentsize`, `e_shnum` and `e_shstrndx` in a 64-bit file's header.
const SHOFF: usize = 0x28;
const SHENTSIZE: usize = 0x3a;
const SHNUM: usize = 0x3c;
const SHSTRNDX: usize = 0x3e;
/// Offset of `sh_name`, `sh_offset`, `sh_size` and `sh_link` in a 64-bit section header.
const SH_NAME: usize = 0;
const SH_OFFSET: usize = 0x18;
const SH_SIZE: usize = 0x20;
const SH_LINK: usize = 0x28;
/// Bytes of a 64-bit symbol, and the offset of its `st_info`, `st_shndx` and `st_size`.
const SYMBOL: usize = 24;
const ST_INFO: usize = 4;
const ST_SHNDX: usize = 6;
const ST_SIZE: usize = 16;
/// `STB_GLOBAL`, in the upper half of `st_info`.
const GLOBAL: u8 = 1;

/// A symbol that others may refer to, in the section that defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) section: &'a [u8],
    /// Bytes of what it names.
    pub(crate) size: u64,
}

/// The global symbols that a 64-bit little-endian file defines; `None` if it is not one, or has no
/// table of symbols.
pub(crate) fn symbols(file: &[u8]) -> Option<Vec<Symbol<'_>>> {
    let sections = section_names(file)?;
    let header = |index: usize| {
        let entry = usize::from(u16::from_le_bytes(bytes(file, SHENTSIZE)?));
        offset(file, SHOFF)?.checked_add(index.checked_mul(entry)?)
    };
    let content = |index: usize| {
        let start = offset(file, header(index)?.checked_add(SH_OFFSET)?)?;
        let size = offset(file, header(index)?.checked_add(SH_SIZE)?)?;
        file.get(start..start.checked_add(size)?)
    };
    let table = sections.iter().position(|name| *name == b".symtab")?;
    let link = u32::from_le_bytes(bytes(file, header(table)?.checked_add(SH_LINK)?)?);
    let names = content(usize::try_from(link).ok()?)?;
    let mut found = Vec::new();
    for symbol in content(table)?.chunks_exact(SYMBOL) {
        let section = usize::from(u16::from_le_bytes(bytes(symbol, ST_SHNDX)?));
        // 0 is one that is defined elsewhere; the highest numbers are no sections.
        let Some(section) = sections.get(section).filter(|_| section != 0) else { continue };
        if symbol.get(ST_INFO)? >> 4 == GLOBAL {
            let at = u32::from_le_bytes(bytes(symbol, 0)?);
            let name = names.get(usize::try_from(at).ok()?..)?.split(|byte| *byte == 0).next()?;
            let size = u64::from_le_bytes(bytes(symbol, ST_SIZE)?);
            found.push(Symbol { name, section, size });
        }
    }
    Some(found)
}

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
    fn global_symbols_are_named_with_the_section_that_defines_them() {
        assert_eq!(symbols(&file(&[b"", b".text"])), None, "no table");
        let mut strings = b"\0local\0PEERS\0elsewhere\0".to_vec();
        let mut table = vec![0; SYMBOL];
        for (name, info, section, size) in [(1_u32, 0, 1, 4), (7, 0x11, 1, 28), (13, 0x10, 0, 0)] {
            let mut symbol = vec![0; SYMBOL];
            symbol[..4].copy_from_slice(&name.to_le_bytes());
            symbol[ST_INFO] = info;
            symbol[ST_SHNDX] = section;
            symbol[ST_SIZE] = size;
            table.extend(symbol);
        }
        let mut file = file(&[b"", b"maps", b".symtab", b".strtab"]);
        let headers = offset(&file, SHOFF).unwrap();
        for (index, content) in [(2, &mut table), (3, &mut strings)] {
            let (at, size) = (file.len() as u64, content.len() as u64);
            file.append(content);
            let header = headers + index * 64;
            file[header + SH_OFFSET..][..8].copy_from_slice(&at.to_le_bytes());
            file[header + SH_SIZE..][..8].copy_from_slice(&size.to_le_bytes());
        }
        file[headers + 2 * 64 + SH_LINK] = 3;
        let peers = Symbol { name: b"PEERS", section: b"maps", size: 28 };
        assert_eq!(symbols(&file).unwrap(), [peers]);
        for length in 0..file.len() {
            assert_eq!(symbols(&file[..length]), None, "{length}");
        }
    }

    #[test]
    fn no_prefix_of_a_file_is_read_past_its_end() {
        let file = file(&[b"", b".text", b".BTF"]);
        for length in 0..file.len() {
            assert_eq!(section_names(&file[..length]), None, "{length}");
        }
    }
}
