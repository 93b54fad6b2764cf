//! Takes the debug information out of an object. The linker needs it to make BTF of it, the loader
//! and the kernel need BTF only, and it makes up five sixths of the file.

use anyhow::{Context, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The object without its `.debug_*` sections and what refers to them.
pub(super) fn without_debug_information(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("cannot read the object")?;
    for section in &mut builder.sections {
        let name = section.name.to_vec();
        section.delete = [&b".debug"[..], b".rel.debug"].iter().any(|it| name.starts_with(it));
    }
    builder.delete_orphans();
    // LLVM keeps the sections' names among those of the symbols; the writer wants them apart.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the object without debug information")?;
    Ok(stripped)
}
