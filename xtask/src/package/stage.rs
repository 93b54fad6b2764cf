//! The directory of which dpkg-deb makes the package: files with the modes that Debian wants, and the
//! package's control data.

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::process::{command, command_in, workspace};

/// See the module's paragraph. Paths are relative to the root of the file system.
pub(super) struct Stage {
    root: PathBuf,
    to_compress: RefCell<Vec<PathBuf>>,
}

impl Stage {
    pub(super) const fn new(root: PathBuf) -> Self {
        Self { root, to_compress: RefCell::new(Vec::new()) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A file that anybody may read.
    pub(super) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.write(path, content.as_ref(), 0o644)
    }

    /// A copy that anybody may execute.
    pub(super) fn program(&self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(path, &content, 0o755)
    }

    /// A file that Debian wants compressed; its name gets `.gz` at the end.
    pub(super) fn compressed(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.to_compress.borrow_mut().push(self.root.join(path));
        self.file(path, content)
    }

    /// Copies of all files below a directory.
    pub(super) fn tree(&self, path: &str, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                // The scripts of the package are not its documentation.
                if entry.file_name() != "debian" && entry.file_name() != "rpm" {
                    self.tree(&path, &entry.path())?;
                }
            } else {
                self.file(&path, fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    /// All files that are to be installed, sorted; those that were to be compressed are.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        let names: Vec<_> =
            self.to_compress.take().into_iter().map(PathBuf::into_os_string).collect();
        if !names.is_empty() {
            command("gzip", ["-9n".into()].into_iter().chain(names)).quietly("gzip")?;
        }
        let mut files = Vec::new();
        list(&self.root, &mut files)?;
        files.retain(|file| !file.starts_with(self.root.join("DEBIAN")));
        files.sort();
        Ok(files)
    }

    /// Adds what can only be said when everything is there: size and checksums.
    pub(super) fn finish(&self, version: &str, architecture: &str) -> Result<()> {
        let files = self.files()?;
        let mut bytes = 0;
        let mut names = Vec::new();
        for file in &files {
            // Whole blocks, as a file system takes them.
            bytes += fs::metadata(file)?.len().next_multiple_of(1024);
            names.push(file.strip_prefix(&self.root)?.as_os_str().to_owned());
        }
        let sums = command_in(&self.root, "md5sum", names).output().context("md5sum failed")?;
        self.file("DEBIAN/md5sums", sums + "\n")?;
        let control = fs::read_to_string(workspace().join("docs/deploy/debian/control"))?;
        let (head, rest) = control.split_once('\n').context("the control file has no lines")?;
        let own = format!(
            "Version: {version}\nArchitecture: {architecture}\nInstalled-Size: {}",
            bytes / 1024
        );
        self.file("DEBIAN/control", format!("{head}\n{own}\n{rest}"))
    }

    fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = self.root.join(path);
        let failed = || format!("cannot write {}", path.display());
        for directory in path.ancestors().skip(1).take_while(|it| it.starts_with(&self.root)) {
            fs::create_dir_all(directory).with_context(failed)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        }
        fs::write(&path, content).with_context(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(failed)
    }
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_name_version_size_and_sums() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let stage = Stage::new(directory.path().join("package"));
        stage.file("etc/one", "x".repeat(1500))?;
        stage.compressed("usr/two", "two")?;
        stage.finish("1.2.3", "amd64")?;
        let read = |name: &str| fs::read_to_string(stage.root().join("DEBIAN").join(name));
        let control = read("control")?;
        assert!(control.starts_with("Package: ptp-agent\nVersion: 1.2.3\nArchitecture: amd64\n"));
        assert!(control.contains("Installed-Size: 3\n"), "{control}");
        let sums = read("md5sums")?;
        assert!(sums.contains("  etc/one\n") && sums.ends_with("  usr/two.gz\n"), "{sums}");
        Ok(())
    }
}
