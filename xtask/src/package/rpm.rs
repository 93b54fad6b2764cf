//! The agent as an RPM: the same files as in the Debian package, laid out in the same directory, with the
//! scripts of docs/deploy/rpm. The crate `rpm` writes the format, so that no distribution's tools are needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionWithLevel, Dependency, FileOptions, PackageBuilder};

use super::{ADDRESS, DEVELOPERS, stage::Stage};
use crate::process::workspace;

/// Of the compression.
const LEVEL: u32 = 9;

/// Builds it into a directory. `architecture`: as RPM calls it. `date`: of the source, seconds since 1970, so that the same source gives the same bytes.
pub(super) fn build(
    stage: &Stage,
    version: &str,
    architecture: &str,
    date: u32,
    directory: &Path,
) -> Result<PathBuf> {
    let (summary, description) = descriptions()?;
    let script = |name: &str| {
        let path = workspace().join("docs/deploy/rpm").join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let licence = "MIT OR Apache-2.0";
    let mut package = PackageBuilder::new("ptp-agent", version, licence, architecture, &summary);
    package
        .using_config(
            BuildConfig::v4().source_date(date).compression(CompressionWithLevel::Gzip(LEVEL)),
        )
        .release("1")
        .description(description)
        .vendor(DEVELOPERS)
        .packager(format!("{DEVELOPERS} <{ADDRESS}>"))
        .group("System Environment/Daemons")
        .add_changelog_entry(
            format!("{DEVELOPERS} <{ADDRESS}> - {version}-1"),
            "- See CHANGELOG.md of the project.",
            date,
        )
        .build_host("localhost")
        .requires(Dependency::any("/usr/sbin/useradd"))
        .requires(Dependency::any("/usr/bin/getent"))
        .recommends(Dependency::any("linuxptp"))
        .post_install_script(script("post")?)
        .pre_uninstall_script(script("preun")?)
        .post_uninstall_script(script("postun")?);
    for file in stage.files()? {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mode = fs::metadata(&file)?.permissions().mode() & 0o7777;
        let path = format!("/{}", file.strip_prefix(stage.root())?.display());
        let options = FileOptions::new(&path).permissions(u16::try_from(mode)?);
        let options = match path.as_str() {
            path if path.starts_with("/etc/") => options.config().noreplace(),
            path if ["/usr/share/doc/", "/usr/share/man/"]
                .iter()
                .any(|it| path.starts_with(it)) =>
            {
                options.doc()
            }
            _ => options,
        };
        package.with_file_contents(content, options)?;
    }
    let output = directory.join(format!("ptp-agent-{version}-1.{architecture}.rpm"));
    package.build()?.write_file(&output)?;
    Ok(output)
}

/// As Debian's control file has them: the summary, and the paragraph below it.
fn descriptions() -> Result<(String, String)> {
    let control = fs::read_to_string(workspace().join("docs/deploy/debian/control"))?;
    let said = control.split_once("Description: ").context("the control file says nothing")?.1;
    let (summary, rest) = said.split_once('\n').context("the control file says too little")?;
    let lines: Vec<_> = rest.lines().map(str::trim).collect();
    Ok((summary.to_owned(), lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_files_twice_give_the_same_bytes_and_name_their_owner_and_mode() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let stage = Stage::new(directory.path().join("files"));
        stage.file("etc/ptp-agent.toml", "x = 1\n")?;
        stage.file("usr/share/doc/ptp-agent/README.md", "read me\n")?;
        let mut bytes = Vec::new();
        for name in ["one", "two"] {
            let to = directory.path().join(name);
            fs::create_dir(&to)?;
            bytes.push(fs::read(build(&stage, "1.2.3", "aarch64", 1_700_000_000, &to)?)?);
        }
        assert_eq!(bytes[0], bytes[1]);
        let package = rpm::Package::parse(&mut bytes[0].as_slice())?;
        assert_eq!(package.metadata.get_arch()?, "aarch64");
        let files = package.metadata.get_file_entries()?;
        let names: Vec<_> = files.iter().map(|file| file.path().display().to_string()).collect();
        assert_eq!(names, ["/etc/ptp-agent.toml", "/usr/share/doc/ptp-agent/README.md"]);
        Ok(())
    }
}
