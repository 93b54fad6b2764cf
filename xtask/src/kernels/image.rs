//! What is in a guest: an initial file system in memory with the agent, its tests, the programs that
//! they start, and their libraries, all taken from this machine; or, for a guest of another architecture, from
//! Debian's packages that were unpacked somewhere. A second archive behind the first holds the modules of the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::kernel::Module;
use crate::process::{command, find};

const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;
/// Where a guest mounts other file systems: what an image has below them is not to be seen.
pub(super) const MOUNTED: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// A file system under construction.
#[derive(Debug, Default)]
pub(super) struct Image {
    files: BTreeMap<PathBuf, Vec<u8>>,
    directories: BTreeSet<PathBuf>,
}

impl Image {
    /// Adds a file.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        self.files.insert(path.into(), bytes);
    }

    /// Adds an empty directory.
    pub(super) fn add_directory(&mut self, path: impl Into<PathBuf>) {
        self.directories.insert(path.into());
    }

    /// Adds a program, without its debug information, and the libraries that it is linked with.
    pub(super) fn add_program(&mut self, program: &Path, path: &str) -> Result<()> {
        for library in libraries(program)? {
            if !self.files.contains_key(&library) {
                let bytes = fs::read(&library)
                    .with_context(|| format!("cannot read {}", library.display()))?;
                self.add(library, bytes);
            }
        }
        self.add(path, stripped(program)?);
        Ok(())
    }

    /// Adds a program of this machine at the place where it is; without it, its tests are skipped.
    pub(super) fn add_tool(&mut self, name: &str) -> Result<()> {
        match find(name) {
            Some(path) => {
                let path = path.display().to_string();
                self.add_program(Path::new(&path), &path)
            }
            None => Ok(()),
        }
    }

    /// Adds a program of another architecture, found below `root`, where Debian's packages were unpacked, with its
    /// libraries and its loader.
    pub(super) fn add_foreign_tool(
        &mut self,
        root: &Path,
        triplet: &str,
        name: &str,
    ) -> Result<()> {
        let places = ["usr/sbin", "usr/bin", "sbin", "bin"];
        let found = places.iter().find_map(|place| within(root, &Path::new(place).join(name)));
        let program = found.with_context(|| format!("no {name} in {}", root.display()))?;
        let bytes = read(&program)?;
        let (needed, loader) = needs(&bytes).with_context(|| format!("{}", program.display()))?;
        self.add(format!("/usr/sbin/{name}"), bytes);
        self.add_foreign_libraries(root, triplet, needed)?;
        if let Some(loader) = loader {
            let relative = loader.trim_start_matches('/');
            let places = [PathBuf::from(relative), Path::new("usr").join(relative)];
            let file = places.iter().find_map(|it| within(root, it));
            let file = file.with_context(|| format!("no {loader} in {}", root.display()))?;
            self.add(&loader, read(&file)?);
        }
        Ok(())
    }

    fn add_foreign_libraries(
        &mut self,
        root: &Path,
        triplet: &str,
        mut wanted: Vec<String>,
    ) -> Result<()> {
        while let Some(name) = wanted.pop() {
            let path = format!("/usr/lib/{triplet}/{name}");
            if self.files.contains_key(Path::new(&path)) {
                continue;
            }
            let places = [
                format!("usr/lib/{triplet}"),
                format!("lib/{triplet}"),
                "usr/lib".into(),
                "lib".into(),
            ];
            let file = places.iter().find_map(|place| within(root, &Path::new(place).join(&name)));
            let file = file.with_context(|| format!("no library {name} in {}", root.display()))?;
            let bytes = read(&file)?;
            wanted.extend(needs(&bytes).with_context(|| format!("{}", file.display()))?.0);
            self.add(path, bytes);
        }
        Ok(())
    }

    /// Adds modules, with their order in a file beside them.
    pub(super) fn add_modules(&mut self, modules: Vec<Module>) {
        let mut order = String::new();
        for Module { name, bytes } in modules {
            order += &format!("{name}\n");
            self.add(format!("/modules/{name}.ko"), bytes);
        }
        self.add("/modules/order", order.into_bytes());
    }

    /// Writes it as an archive in the format newc.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<()> {
        let mut number = 0;
        let mut entry = |name: &Path, mode: u32, bytes: &[u8], out: &mut dyn Write| {
            number += 1;
            let name = name.strip_prefix("/").unwrap_or(name);
            let name = name.to_str().context("a file name that is not UTF-8")?;
            let size = u32::try_from(bytes.len()).context("a file beyond 4 GiB")?;
            let header = cpio::newc::Builder::new(name).ino(number).mode(mode).nlink(1);
            let mut writer = header.write(out, size);
            writer.write_all(bytes)?;
            writer.finish()?;
            anyhow::Ok(())
        };
        let mut directories: BTreeSet<&Path> =
            self.files.keys().flat_map(|path| path.ancestors().skip(1)).collect();
        directories.extend(self.directories.iter().flat_map(|path| path.ancestors()));
        for directory in directories {
            if directory != Path::new("/") {
                entry(directory, DIRECTORY, &[], out)?;
            }
        }
        for (path, bytes) in &self.files {
            if let Some(mounted) = MOUNTED.iter().find(|directory| path.starts_with(directory)) {
                bail!("{} would be hidden: guests mount something on {mounted}", path.display());
            }
            entry(path, FILE, bytes, out)?;
        }
        cpio::newc::trailer(out).context("cannot write the archive")?;
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The libraries that an ELF file names, and its loader.
fn needs(bytes: &[u8]) -> Result<(Vec<String>, Option<String>)> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    type Elf = object::elf::FileHeader64<object::Endianness>;
    let header = Elf::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let table = sections.dynamic_table(endian, bytes)?;
    let mut needed = Vec::new();
    for entry in table.iter().filter(|entry| entry.tag == object::elf::DT_NEEDED) {
        needed.push(String::from_utf8_lossy(table.string(entry)?).into_owned());
    }
    let mut loader = None;
    for segment in header.program_headers(endian, bytes)? {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            loader = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    Ok((needed, loader))
}

/// A program without debug information; as it is where there is no objcopy.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let stripped = directory.path().join("program");
    let arguments = ["--strip-all".as_ref(), program.as_os_str(), stripped.as_os_str()];
    let file = match command("objcopy", arguments).output() {
        Some(_) => &stripped,
        None => program,
    };
    fs::read(file).with_context(|| format!("cannot read {}", program.display()))
}

/// The libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Some(listed) = command("ldd", [program]).output() else {
        // A static one.
        return Ok(Vec::new());
    };
    let mut libraries = Vec::new();
    for line in listed.lines() {
        if line.contains("not found") {
            bail!("{} lacks a library: {line}", program.display());
        }
        let library = line.split_whitespace().find(|word| word.starts_with('/'));
        libraries.extend(library.map(PathBuf::from));
    }
    Ok(libraries)
}

/// A file below `root`, where absolute links lead to others below it and not to this machine's.
fn within(root: &Path, file: &Path) -> Option<PathBuf> {
    let mut path = root.join(file);
    for _ in 0..8 {
        let Ok(target) = fs::read_link(&path) else { return path.exists().then_some(path) };
        path = match target.strip_prefix("/") {
            Ok(inside) => root.join(inside),
            Err(_) => path.parent()?.join(target),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_directories_before_their_files() -> Result<()> {
        let mut image = Image::default();
        image.add("/usr/bin/b", b"content".to_vec());
        image.add("/init", Vec::new());
        let mut bytes = Vec::new();
        image.write(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut names = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(rest)?;
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish()?;
        }
        assert_eq!(names, ["usr", "usr/bin", "init", "usr/bin/b"]);
        assert_eq!(bytes.len() % 4, 0, "another archive can follow");
        Ok(())
    }

    #[test]
    fn file_that_a_guest_would_not_see_is_refused() {
        let mut image = Image::default();
        image.add("/tmp/checkout/target/attach", Vec::new());
        let error = image.write(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("/tmp/checkout/target/attach would be hidden"), "{error}");
    }

    #[test]
    fn libraries_and_loader_are_read_from_the_file_itself() -> Result<()> {
        let (needed, loader) = needs(&read(&find("sh").context("a shell")?)?)?;
        assert!(needed.iter().any(|name| name.starts_with("libc.")), "{needed:?}");
        assert!(loader.is_some_and(|loader| loader.contains("ld-")));
        Ok(())
    }

    #[test]
    fn a_program_brings_its_libraries() -> Result<()> {
        let shell = find("sh").context("a shell")?;
        let libraries = libraries(&shell)?;
        assert!(libraries.iter().any(|path| path.to_string_lossy().contains("libc")));
        Ok(())
    }
}
