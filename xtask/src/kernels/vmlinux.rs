//! The kernel inside of Debian's compressed image: emulated, its own decompressor would take longer
//! than everything that is tested afterwards. On x86-64 an ELF file, elsewhere what the emulator loads like a boot
//! loader.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};

/// Fields of the boot header (Linux, Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// More than any kernel.
const LIMIT: u64 = 512 << 20;

/// The ELF file in a bzImage.
pub(super) fn extract(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(image.get(MAGIC..MAGIC + 4) == Some(b"HdrS"), "this is no kernel image");
    let sectors = match image.get(SETUP_SECTORS) {
        Some(0) | None => 4,
        Some(sectors) => usize::from(*sectors),
    };
    let start = (sectors + 1) * 512 + word(image, PAYLOAD_OFFSET)?;
    // The last four bytes are the length of what comes out.
    let end = (start + word(image, PAYLOAD_LENGTH)?).saturating_sub(4);
    let payload = image.get(start..end).context("the kernel image is cut short")?;
    let kernel = decompress(payload)?;
    ensure!(kernel.starts_with(b"\x7fELF"), "the kernel in the image is no ELF file");
    Ok(kernel)
}

/// The kernel in an image of another architecture: as it is, or unpacked where it is compressed as a whole or brings
/// its own decompressor as a program of the firmware (Linux, drivers/firmware/efi/libstub/zboot-header.S).
pub(super) fn unpack(image: Vec<u8>) -> Result<Vec<u8>> {
    if image.starts_with(b"MZ") && image.get(4..8) == Some(b"zimg") {
        let start = word(&image, 8)?;
        let end = start + word(&image, 12)?;
        return decompress(image.get(start..end).context("the kernel image is cut short")?);
    }
    if image.starts_with(&GZIP) {
        return decompress(&image);
    }
    Ok(image)
}

const GZIP: [u8; 2] = [0x1f, 0x8b];

fn word(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let bytes: [u8; 4] = bytes.context("the kernel image is cut short")?;
    Ok(u32::from_le_bytes(bytes) as usize)
}

fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    match packed {
        [0x02, 0x21, 0x4c, 0x18, ..] => read(lz4_flex::frame::FrameDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => read(ruzstd::decoding::StreamingDecoder::new(packed)?),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => unpack_xz(packed),
        [0x1f, 0x8b, ..] => read(flate2::read::GzDecoder::new(packed)),
        [first, second, ..] => bail!("unknown compression of the kernel: {first:02x}{second:02x}"),
        _ => bail!("the kernel image is empty"),
    }
}

fn unpack_xz(packed: &[u8]) -> Result<Vec<u8>> {
    read(lzma_rust2::XzReader::new(packed, false))
}

fn read(reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LIMIT).read_to_end(&mut bytes).context("cannot decompress")?;
    Ok(bytes)
}

/// A file that may be compressed with xz, by its name.
pub(super) fn read_maybe_xz(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.extension().is_some_and(|extension| extension == "xz") {
        return unpack_xz(&bytes).with_context(|| format!("{}", path.display()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_compressed_are_unpacked_and_others_are_left_alone() -> Result<()> {
        use std::io::Write as _;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(b"kernel")?;
        let packed = packer.finish()?;
        let mut program = b"MZ\0\0zimg".to_vec();
        program.extend(16_u32.to_le_bytes());
        program.extend(u32::try_from(packed.len())?.to_le_bytes());
        program.extend(&packed);
        for image in [packed, program, b"kernel".to_vec()] {
            assert_eq!(unpack(image)?, b"kernel");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_kernel_image_is_refused() {
        assert!(extract(b"").is_err());
        let mut image = vec![0; 1024];
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = extract(&image).unwrap_err().to_string();
        assert!(error.contains("cut short"), "{error}");
    }
}
