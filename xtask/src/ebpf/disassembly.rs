//! Writes an object's instructions, programs and maps as text, so that two objects can be compared
//! and their difference read. Every byte of every instruction is shown, next to its meaning in the
//! notation of the kernel's verifier and the name of what a relocation will put there. Debug
//! information and BTF, which name files and differ from compiler to compiler, are not shown.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result};
use object::{
    Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind,
    read::elf::ElfFile64,
};

/// Length of an instruction in bytes; loads of 64-bit constants take two.
const INSTRUCTION: usize = 8;

/// Everything in the object that decides what the kernel will do.
pub(super) fn describe(data: &[u8]) -> Result<String> {
    let mut text = String::new();
    let file = ElfFile64::<object::Endianness>::parse(data).context("not an ELF file")?;
    // The loader is for the machine that it runs on: it reads no object of the other byte order.
    if file.is_little_endian() == cfg!(target_endian = "little") {
        describe_maps(&mut text, data)?;
    }
    for section in file.sections().filter(is_data) {
        let name = section.name()?;
        writeln!(text, "data {name}: {} bytes {:02x?}", section.size(), section.data()?)?;
        for (offset, name, size) in symbols(&file, &section)? {
            let name = without_crate_hash(name);
            writeln!(text, "  {offset:4}: {name}, {size} bytes")?;
        }
    }
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        describe_code(&mut text, &file, &section)?;
    }
    Ok(text)
}

fn describe_maps(text: &mut String, data: &[u8]) -> Result<()> {
    let loaded = aya_obj::Object::parse(data).context("the loader refuses it")?;
    writeln!(text, "license {}", loaded.license.to_string_lossy())?;
    for (name, map) in loaded.maps.iter().collect::<BTreeMap<_, _>>() {
        writeln!(
            text,
            "map {name}: type {}, key {} bytes, value {} bytes, {} entries, flags {:#x}, pinning {:?}",
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags(),
            map.pinning(),
        )?;
    }
    Ok(())
}

/// Whether this is a section of global variables.
fn is_data<'data>(section: &impl ObjectSection<'data>) -> bool {
    let name = section.name().unwrap_or_default();
    [".rodata", ".data", ".bss"].iter().any(|it| {
        name.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Offset, name and size of the functions and variables in a section.
fn symbols<'data>(
    file: &'data ElfFile64<'data>,
    section: &impl ObjectSection<'data>,
) -> Result<Vec<(u64, &'data str, u64)>> {
    let mut found = Vec::new();
    for symbol in file.symbols() {
        let named = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data);
        if named && symbol.section_index() == Some(section.index()) {
            found.push((symbol.address(), symbol.name()?, symbol.size()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A mangled name (Rust's v0 scheme, RFC 2603) without the hashes of crates, which differ from one
/// directory to the next: `Cs1a2b_9ptp_agent` becomes `C9ptp_agent`.
fn without_crate_hash(name: &str) -> String {
    let Some(mangled) = name.strip_prefix("_R") else { return name.to_owned() };
    let (mut text, mut rest) = ("_R".to_owned(), mangled);
    while let Some((before, behind)) = rest.split_once("Cs") {
        text += before;
        rest = match behind.split_once('_') {
            // The hash may have these letters in it as well.
            Some((hash, behind)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                text += "C";
                behind
            }
            _ => {
                text += "Cs";
                behind
            }
        };
    }
    text += rest;
    text
}

fn describe_code<'data>(
    text: &mut String,
    file: &'data ElfFile64<'data>,
    section: &impl ObjectSection<'data>,
) -> Result<()> {
    let mut references = BTreeMap::new();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let symbol = file.symbol_by_index(index)?;
        let name = match (symbol.kind(), symbol.section_index()) {
            (SymbolKind::Section, Some(index)) => file.section_by_index(index)?.name()?,
            _ => symbol.name()?,
        };
        references.insert(offset, name);
    }
    let functions = symbols(file, section)?;
    let mut wide = false;
    for (index, bytes) in section.data()?.chunks(INSTRUCTION).enumerate() {
        let offset = u64::try_from(index * INSTRUCTION)?;
        for (_, name, _) in functions.iter().filter(|(start, ..)| *start == offset) {
            let name = without_crate_hash(name);
            writeln!(text, "\nprogram {name} in section {}", section.name()?)?;
        }
        let instruction = Instruction::parse(bytes, file.is_little_endian())
            .context("code ends within an instruction")?;
        let meaning = if wide { "(continued)".to_owned() } else { instruction.to_string() };
        wide = !wide && instruction.opcode == LD_IMM64;
        let raw = bytes.iter().fold(String::new(), |raw, byte| raw + &format!("{byte:02x}"));
        write!(text, "{index:5}: {raw}  {meaning}")?;
        if let Some(name) = references.get(&offset) {
            write!(text, "  <{}>", without_crate_hash(name))?;
        }
        text.push('\n');
    }
    Ok(())
}

/// Load a 64-bit constant: takes the place of two instructions.
const LD_IMM64: u8 = 0x18;

/// One instruction, as RFC 9669 section 3 lays it out.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    opcode: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

impl Instruction {
    /// Fields have the byte order of the machine, and so have the two registers in their byte.
    fn parse(bytes: &[u8], is_little: bool) -> Option<Self> {
        let &[opcode, registers, o0, o1, i0, i1, i2, i3] = bytes else { return None };
        let (low, high) = (registers & 0x0f, registers >> 4);
        let (offset, imm) = ([o0, o1], [i0, i1, i2, i3]);
        Some(if is_little {
            let (offset, imm) = (i16::from_le_bytes(offset), i32::from_le_bytes(imm));
            Self { opcode, dst: low, src: high, offset, imm }
        } else {
            let (offset, imm) = (i16::from_be_bytes(offset), i32::from_be_bytes(imm));
            Self { opcode, dst: high, src: low, offset, imm }
        })
    }

    /// The second operand: a register or a constant (RFC 9669 section 4, the source bit).
    fn operand(&self, letter: char) -> String {
        if self.opcode & 0x08 != 0 { format!("{letter}{}", self.src) } else { self.imm.to_string() }
    }

    /// Arithmetic (RFC 9669 section 4.1).
    fn arithmetic(&self, letter: char) -> Option<String> {
        let dst = format!("{letter}{}", self.dst);
        let operator = match self.opcode >> 4 {
            0x0 => "+=",
            0x1 => "-=",
            0x2 => "*=",
            0x3 => "/=",
            0x4 => "|=",
            0x5 => "&=",
            0x6 => "<<=",
            0x7 => ">>=",
            0x8 => return Some(format!("{dst} = -{dst}")),
            0x9 => "%=",
            0xa => "^=",
            0xb => "=",
            0xc => "s>>=",
            0xd => {
                let order = match (letter, self.opcode & 0x08) {
                    ('r', _) => "bswap",
                    (_, 0) => "le",
                    _ => "be",
                };
                return Some(format!("r{0} = {order}{1} r{0}", self.dst, self.imm));
            }
            _ => return None,
        };
        Some(format!("{dst} {operator} {}", self.operand(letter)))
    }

    /// Jumps (RFC 9669 section 4.3).
    fn jump(&self, letter: char) -> Option<String> {
        let operator = match self.opcode >> 4 {
            0x0 => return Some(format!("goto {:+}", self.offset)),
            0x1 => "==",
            0x2 => ">",
            0x3 => ">=",
            0x4 => "&",
            0x5 => "!=",
            0x6 => "s>",
            0x7 => "s>=",
            0x8 if self.src == 1 => return Some(format!("call function {:+}", self.imm)),
            0x8 => return Some(format!("call helper {}", self.imm)),
            0x9 => return Some("exit".to_owned()),
            0xa => "<",
            0xb => "<=",
            0xc => "s<",
            0xd => "s<=",
            _ => return None,
        };
        let operand = self.operand(letter);
        Some(format!("if {letter}{} {operator} {operand} goto {:+}", self.dst, self.offset))
    }

    /// Loads and stores (RFC 9669 section 5).
    fn access(&self) -> Option<String> {
        let width = match self.opcode & 0x18 {
            0x00 => "u32",
            0x08 => "u16",
            0x10 => "u8",
            _ => "u64",
        };
        let at = |register: u8| format!("*({width} *)(r{register} {:+})", self.offset);
        Some(match (self.opcode & 0x07, self.opcode & 0xe0) {
            (0x00, 0x00) if self.opcode == LD_IMM64 => format!("r{} = {} ll", self.dst, self.imm),
            (0x01, 0x60) => format!("r{} = {}", self.dst, at(self.src)),
            (0x01, 0x80) => format!("r{} = signed {}", self.dst, at(self.src)),
            (0x02, 0x60) => format!("{} = {}", at(self.dst), self.imm),
            (0x03, 0x60) => format!("{} = r{}", at(self.dst), self.src),
            (0x03, 0xc0) => format!("lock {} op {:#x} r{}", at(self.dst), self.imm, self.src),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Instruction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self.opcode & 0x07 {
            0x04 => self.arithmetic('w'),
            0x05 => self.jump('r'),
            0x06 => self.jump('w'),
            0x07 => self.arithmetic('r'),
            _ => self.access(),
        };
        f.write_str(text.as_deref().unwrap_or("?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: [u8; INSTRUCTION]) -> String {
        Instruction::parse(&bytes, true).expect("the length is right").to_string()
    }

    // The bytes and their meaning are what llvm-objdump shows of compiled programs.
    #[test]
    fn names_do_not_depend_on_where_a_crate_was_built() {
        let here = without_crate_hash("_RNCNvNtCs5xWVBxfzUOL_9ptp_agent4find4find0B5_");
        let there = without_crate_hash("_RNCNvNtCs10EFuydWgVZ_9ptp_agent4find4find0B5_");
        assert_eq!(here, "_RNCNvNtC9ptp_agent4find4find0B5_");
        assert_eq!(here, there);
        assert_eq!(without_crate_hash("ptp_tc_egress"), "ptp_tc_egress");
        assert_eq!(without_crate_hash("_RNvCsabCs8iQ_9ptp_agent4find"), "_RNvC9ptp_agent4find");
        assert_eq!(without_crate_hash("Cs1_"), "Cs1_");
    }

    #[test]
    fn instructions_are_written_as_the_verifier_does() {
        assert_eq!(text([0xbf, 0x16, 0, 0, 0, 0, 0, 0]), "r6 = r1");
        assert_eq!(text([0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "r0 = -1");
        assert_eq!(text([0x67, 0x02, 0, 0, 0x20, 0, 0, 0]), "r2 <<= 32");
        assert_eq!(text([0xdc, 0x01, 0, 0, 0x10, 0, 0, 0]), "r1 = be16 r1");
        assert_eq!(text([0x61, 0x12, 0x4c, 0, 0, 0, 0, 0]), "r2 = *(u32 *)(r1 +76)");
        assert_eq!(text([0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0]), "*(u64 *)(r10 -8) = r1");
        assert_eq!(text([0x55, 0, 0x02, 0, 0, 0, 0, 0]), "if r0 != 0 goto +2");
        assert_eq!(text([0x2d, 0x21, 0xfd, 0xff, 0, 0, 0, 0]), "if r1 > r2 goto -3");
        assert_eq!(text([0x85, 0, 0, 0, 0x05, 0, 0, 0]), "call helper 5");
        assert_eq!(text([0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff]), "call function -1");
        assert_eq!(text([0xdb, 0x21, 0, 0, 0, 0, 0, 0]), "lock *(u64 *)(r1 +0) op 0x0 r2");
        assert_eq!(text([0x95, 0, 0, 0, 0, 0, 0, 0]), "exit");
        assert_eq!(text([0xff; INSTRUCTION]), "?");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(describe(b"").is_err());
        assert!(describe(&[0x7f; 200]).is_err());
    }

    #[test]
    fn the_same_instruction_has_its_fields_in_either_byte_order() {
        // r2 = 0x01020304, r1 += r2 with an offset that is not used.
        let little = [[0xb7, 0x02, 0, 0, 4, 3, 2, 1], [0x0f, 0x21, 2, 1, 0, 0, 0, 0]];
        let big = [[0xb7, 0x20, 0, 0, 1, 2, 3, 4], [0x0f, 0x12, 1, 2, 0, 0, 0, 0]];
        for (little, big) in little.iter().zip(&big) {
            let [one, other] = [Instruction::parse(little, true), Instruction::parse(big, false)]
                .map(|it| it.expect("the length is right").to_string());
            assert_eq!(one, other);
        }
    }
}
