//! Debian's kernels: which there are of a series, and of an unpacked one the kernel itself and the
//! modules that the tests need, each after those that it depends on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use object::{Object as _, ObjectSection as _};

use super::vmlinux;
use crate::{apt::Apt, machine::Machine};

/// Where the kernels are: 5.10 in the first, 6.1 in the second, 6.12 in the third, the newest in one
/// of the others.
pub(super) const SUITES: [&str; 5] =
    ["bullseye-security", "bookworm-security", "bookworm-backports", "trixie-backports", "sid"];

/// How Debian has built a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// For virtual machines, the smallest.
    Cloud,
    /// With drivers of network cards.
    Full,
    /// The smallest that there is for another machine.
    Of(Machine),
}

impl Build {
    /// Depends on the newest kernel.
    const fn metapackage(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Full => "linux-image-amd64",
            Self::Of(Machine::X86) => "linux-image-cloud-amd64",
            Self::Of(Machine::Arm) => "linux-image-cloud-arm64",
            Self::Of(Machine::Riscv) => "linux-image-riscv64",
            Self::Of(Machine::S390) => "linux-image-s390x",
        }
    }
}

/// A line of kernels of which one is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Series {
    /// Long-term series by their version.
    LongTerm(&'static str),
    /// Whatever is the newest.
    Newest,
}

impl Series {
    pub(super) const ALL: [Self; 4] =
        [Self::LongTerm("5.10"), Self::LongTerm("6.1"), Self::LongTerm("6.12"), Self::Newest];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::LongTerm(version) => version,
            Self::Newest => "newest",
        }
    }

    fn includes(self, version: &str) -> bool {
        match self {
            Self::LongTerm(series) => {
                version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
            }
            Self::Newest => true,
        }
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: String,
    /// What the emulator loads: on x86-64 an ELF file.
    pub(super) vmlinux: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series, downloaded into `cache` unless it is there.
    pub(super) fn get(apt: &Apt, cache: &Path, series: Series, build: Build) -> Result<Self> {
        let mut candidates = apt.candidates(build.metapackage());
        candidates.retain(|candidate| series.includes(&candidate.version));
        candidates.sort_by_key(|candidate| std::cmp::Reverse(numbers(&candidate.version)));
        let mut problem = anyhow!("Debian's mirror has no kernel {}", series.name());
        // A mirror may list what it does not have any more, or not yet.
        for image in candidates.iter().filter_map(|candidate| image_package(&candidate.depends)) {
            match Self::of_image(apt, cache, image, build) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn of_image(apt: &Apt, cache: &Path, image: String, build: Build) -> Result<Self> {
        let release = image.trim_start_matches("linux-image-").to_owned();
        let directory = cache.join(&release);
        if !directory.exists() {
            // Since 7.2 the package is a shell around two others.
            let split = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
            let is_split = !apt.candidates(&split[0]).is_empty();
            let packages = if is_split { split.to_vec() } else { vec![image] };
            apt.unpack(&packages, &directory)?;
        }
        let is_elf = !matches!(build, Build::Of(machine) if machine != Machine::X86);
        Self::open(&directory, release, is_elf)
    }

    /// None, for tests that boot nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { release: String::new(), vmlinux: PathBuf::new(), modules: PathBuf::new() }
    }

    fn open(directory: &Path, release: String, is_elf: bool) -> Result<Self> {
        let modules = ["lib/modules", "usr/lib/modules"]
            .map(|path| directory.join(path).join(&release))
            .into_iter()
            .find(|path| path.join("kernel").is_dir())
            .with_context(|| format!("no modules in {}", directory.display()))?;
        let vmlinux = directory.join("vmlinux");
        if !vmlinux.exists() {
            let images = [
                directory.join(format!("boot/vmlinuz-{release}")),
                directory.join(format!("boot/vmlinux-{release}")),
                directory.join(format!("usr/lib/modules/{release}/vmlinuz")),
            ];
            let image = images.iter().find(|path| path.exists());
            let image = image.with_context(|| format!("no kernel in {}", directory.display()))?;
            let packed = fs::read(image)?;
            let kernel = if is_elf { vmlinux::extract(&packed) } else { vmlinux::unpack(packed) };
            let kernel = kernel.with_context(|| format!("cannot unpack {}", image.display()))?;
            // Complete or not at all.
            let partial = vmlinux.with_extension("part");
            fs::write(&partial, kernel)?;
            fs::rename(partial, &vmlinux)?;
        }
        Ok(Self { release, vmlinux, modules })
    }

    /// Modules by name with all that they need, in the order in which they can be loaded. Those that
    /// the kernel has built in, or does not have, are left out.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut files = Vec::new();
        walk(&self.modules.join("kernel"), &mut files)?;
        let mut loaded = Vec::new();
        for name in names {
            load(name, &files, &mut loaded, 0)?;
        }
        Ok(loaded)
    }
}

/// A kernel module.
#[derive(Debug)]
pub(super) struct Module {
    /// With underscores.
    pub(super) name: String,
    /// ELF file.
    pub(super) bytes: Vec<u8>,
}

fn load(name: &str, files: &[PathBuf], loaded: &mut Vec<Module>, depth: u32) -> Result<()> {
    ensure!(depth < 20, "the modules depend on each other in a circle at {name}");
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.iter().find(|file| module_name(file).is_some_and(|it| it == name))
    else {
        return Ok(());
    };
    let bytes = vmlinux::read_maybe_xz(file)?;
    for needed in dependencies(&bytes).with_context(|| format!("{}", file.display()))? {
        load(&needed, files, loaded, depth + 1)?;
    }
    loaded.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

/// What `depends=` in the module's information says.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("a module without .modinfo")?;
    let data = section.data()?;
    let entries = data.split(|byte| *byte == 0);
    let depends = entries.filter_map(|entry| entry.strip_prefix(b"depends="));
    Ok(depends
        .flat_map(|names| names.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect())
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The package of the image among what the metapackage depends on: its name goes on with a version.
fn image_package(depends: &str) -> Option<String> {
    depends
        .split(',')
        .filter_map(|package| package.split_whitespace().next())
        .find(|name| {
            let rest = name.strip_prefix("linux-image-");
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
        .map(str::to_owned)
}

/// The numbers in a version, for comparing: enough for kernels.
fn numbers(version: &str) -> Vec<u64> {
    let upstream = version.split('-').next().unwrap_or_default();
    upstream.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_not_the_last_in_the_alphabet() {
        assert!(numbers("6.12.95-1~bpo12+1") > numbers("6.1.192-2"));
        assert!(numbers("7.3.4-1~bpo13+1") > numbers("7.2.13-1"));
        assert!(Series::LongTerm("6.1").includes("6.1.192-2"));
        assert!(!Series::LongTerm("6.1").includes("6.12.95-1"));
    }

    #[test]
    fn the_image_is_told_from_the_metapackages_other_needs() {
        let depends = "linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-modules-cloud-amd64 (= 7.3.4-1)";
        assert_eq!(image_package(depends).unwrap(), "linux-image-7.3.4+deb13-cloud-amd64");
    }

    #[test]
    fn modules_are_known_by_their_file_names() {
        let name = module_name(Path::new("a/virtio-net.ko.xz"));
        assert_eq!(name.as_deref(), Some("virtio_net"));
        assert_eq!(module_name(Path::new("a/modules.order")), None);
    }
}
