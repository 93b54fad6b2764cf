//! The kernel programs inside of the agent: objects as compiled by `cargo xtask ebpf build`. There is one set for
//! each byte order, of the same source, because the kernel wants instructions in its own; nothing else in them
//! depends on the machine. They read packets, the context of their hook and what helpers return, and no structure of
//! the kernel whose layout an architecture decides, so one set serves x86-64, arm64, riscv64 and others.

/// The bytes of an object by the name of its programs, for machines of the byte order that this is compiled for.
#[cfg(target_endian = "little")]
macro_rules! kernel_programs {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/", $name, ".bpf.o"))
    };
}

/// The same, the other way round.
#[cfg(target_endian = "big")]
macro_rules! kernel_programs {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/bpf/big-endian/",
            $name,
            ".bpf.o"
        ))
    };
}

#[cfg(test)]
mod tests {
    use object::{Object as _, read::elf::ElfFile64};

    #[test]
    fn objects_have_the_byte_order_of_the_machine() {
        for object in [
            crate::answers::OBJECT,
            crate::bench::OBJECT,
            crate::capture::HINTS_OBJECT,
            crate::capture::OBJECT,
            crate::transparent::programs::OBJECT,
        ] {
            let file = ElfFile64::<object::Endianness>::parse(object).unwrap();
            assert_eq!(file.is_little_endian(), cfg!(target_endian = "little"));
        }
    }
}
