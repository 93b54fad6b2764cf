//! Key files: that of linuxptp (`sa_file`), read as it is, and the same in TOML. A file that others may
//! read or change is refused, and so is one that belongs to somebody else. Errors name the line
//! and never the key.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Algorithm, Association, Key, KeyRing, MAX_ASSOCIATIONS, MAX_KEYS, replay};

/// A key file has no reason to be larger, bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// Who may do what with a key file besides its owner: nothing, or its group may read it.
const FORBIDDEN_MODE: u32 = 0o037;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Cannot be read.
    #[error("cannot read key file {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Others can read or change it.
    #[error(
        "key file {path} may be read or changed by others (mode {mode:04o}): make it 0600 or 0640"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else's.
    #[error("key file {path} belongs to user {owner}, who is neither root nor the agent's own")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// What is in it.
    #[error("key file {path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: ContentError,
    },
}

/// What is wrong in a key file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// In this line.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// In the file as a whole.
    #[error("{0}")]
    Whole(String),
}

/// Which key signs, where the file alone does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The association; default: what the file says, or the first of it.
    pub spp: Option<u8>,
    /// The key; default: what the file says, or the first of the association.
    pub key_id: Option<u32>,
}

/// Reads the keys in `path`.
///
/// # Errors
/// [`KeyFileError`].
pub fn read(path: &Path, choice: Choice) -> Result<KeyRing, KeyFileError> {
    let failed = |error| KeyFileError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, not of the name.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(KeyFileError::Owner { path: path.to_owned(), owner });
    }
    // Room for all of it, so that no copy of a part stays behind when it grows.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize + 1));
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(io::Error::other("larger than 256 KiB")));
    }
    parse(&text, choice).map_err(|problem| KeyFileError::Content { path: path.to_owned(), problem })
}

/// The keys in the text of a file, of either form.
///
/// # Errors
/// [`ContentError`].
pub fn parse(text: &str, choice: Choice) -> Result<KeyRing, ContentError> {
    // Both forms know comments, and only the one begins with this section.
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let (associations, said) =
        if first.is_some_and(|line| line.starts_with("[security_association]")) {
            (linuxptp(text)?, Choice::default())
        } else {
            toml_form(text)?
        };
    ring(
        associations,
        Choice {
            spp: choice.spp.or(said.spp),
            // A key of the file's choice belongs to the association of the file's choice.
            key_id: choice
                .key_id
                .or(said.key_id.filter(|_| choice.spp.is_none_or(|it| Some(it) == said.spp))),
        },
    )
}

fn ring(associations: Vec<Association>, choice: Choice) -> Result<KeyRing, ContentError> {
    let whole = |problem: String| Err(ContentError::Whole(problem));
    let Some(first) = associations.first() else {
        return whole("no security association in it".to_owned());
    };
    let spp = choice.spp.unwrap_or(first.spp);
    let Some(association) = associations.iter().find(|it| it.spp == spp) else {
        return whole(format!("no association with spp {spp}"));
    };
    let Some((first, _)) = association.keys.first() else {
        return whole(format!("no key in the association with spp {spp}"));
    };
    let key_id = choice.key_id.unwrap_or(*first);
    if association.key(key_id).is_none() {
        return whole(format!("no key {key_id} in the association with spp {spp}"));
    }
    Ok(KeyRing { associations, spp, key_id })
}

fn new_association(spp: u8) -> Association {
    Association { spp, keys: Vec::new(), ahead: replay::AHEAD, is_correction_mutable: false }
}

/// The form of linuxptp's `sa_file`.
fn linuxptp(text: &str) -> Result<Vec<Association>, ContentError> {
    let mut associations: Vec<Association> = Vec::new();
    let mut is_open = false;
    for (line, content) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        let wrong = |problem: &str| Err(ContentError::Line { line, problem: problem.to_owned() });
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if content.starts_with('[') {
            if content != "[security_association]" {
                return wrong("expected [security_association]");
            }
            is_open = false;
            if associations.len() == MAX_ASSOCIATIONS {
                return wrong("too many associations");
            }
            // Its number comes in the next line.
            continue;
        }
        let (name, rest) = content.split_once(char::is_whitespace).unwrap_or((content, ""));
        let rest = rest.trim();
        if name == "spp" {
            let Ok(spp) = rest.parse() else { return wrong("spp is not from 0 to 255") };
            if is_open || associations.iter().any(|association| association.spp == spp) {
                return wrong("a second spp, or one that there is already");
            }
            associations.push(new_association(spp));
            is_open = true;
            continue;
        }
        let Some(association) = associations.last_mut().filter(|_| is_open) else {
            return wrong("an association begins with its spp");
        };
        match name {
            "seqid_window" => match rest.parse() {
                Ok(ahead @ 0..=0x7fff) => association.ahead = ahead,
                _ => return wrong("seqid_window is not from 0 to 32767"),
            },
            "allow_mutable" => match rest {
                "0" => association.is_correction_mutable = false,
                "1" => association.is_correction_mutable = true,
                _ => return wrong("allow_mutable is neither 0 nor 1"),
            },
            id => {
                let added = key_line(id, rest).and_then(|(id, key)| add(association, id, key));
                if let Err(problem) = added {
                    return wrong(problem);
                }
            }
        }
    }
    Ok(associations)
}

/// `TYPE [LENGTH] VALUE` behind the identifier of a key.
fn key_line(id: &str, rest: &str) -> Result<(u32, Key), &'static str> {
    let id = id.parse().map_err(|_| "expected an option, or the number of a key")?;
    let (name, rest) = rest.split_once(char::is_whitespace).ok_or("expected type and key")?;
    let rest = rest.trim();
    let (length, value) = match rest.split_once(char::is_whitespace) {
        Some((length, value)) => {
            let length: usize = length.parse().map_err(|_| "expected the key's length")?;
            (Some(length), value.trim())
        }
        None => (None, rest),
    };
    let secret = secret(value)?;
    if length.is_some_and(|length| length != secret.len()) {
        return Err("the key has another length than the line says");
    }
    Ok((id, key(name, &secret)?))
}

fn key(name: &str, secret: &[u8]) -> Result<Key, &'static str> {
    let algorithm = Algorithm::ALL.iter().find(|(each, _)| *each == name).map(|(_, it)| *it);
    let algorithm = algorithm.ok_or("the type is none of SHA256-128, SHA256, AES128 and AES256")?;
    Key::new(algorithm, secret).ok_or("the key has the wrong length for its type")
}

fn add(association: &mut Association, id: u32, key: Key) -> Result<(), &'static str> {
    if id == 0 {
        return Err("keys are numbered from 1");
    }
    if association.key(id).is_some() {
        return Err("the association has this key already");
    }
    if association.keys.len() == MAX_KEYS {
        return Err("too many keys");
    }
    association.keys.push((id, key));
    Ok(())
}

/// A key as it is written: ASCII, hexadecimal or base 64.
fn secret(value: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    if let Some(hex) = value.strip_prefix("HEX:") {
        let digits = hex.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return Err("an odd number of hexadecimal digits");
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or("not a hexadecimal digit");
        let mut secret = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        for pair in digits.chunks_exact(2) {
            secret.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        }
        return Ok(secret);
    }
    if let Some(text) = value.strip_prefix("B64:") {
        return Base64::decode_vec(text).map(Zeroizing::new).map_err(|_| "not base 64");
    }
    let ascii = value.strip_prefix("ASCII:").unwrap_or(value);
    Ok(Zeroizing::new(ascii.as_bytes().to_vec()))
}

/// The whole file in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    spp: Option<u8>,
    active_key: Option<u32>,
    #[serde(default)]
    association: Vec<WrittenAssociation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenAssociation {
    spp: u8,
    replay_window: Option<u16>,
    #[serde(default)]
    allow_mutable: bool,
    #[serde(default)]
    key: Vec<WrittenKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenKey {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    value: Value,
}

/// Wiped when it is dropped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Value(String);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn toml_form(text: &str) -> Result<(Vec<Association>, Choice), ContentError> {
    let written: Written = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        // The crate's own text shows the line, and with it a key.
        let problem = error.message().lines().next().unwrap_or("not understood").to_owned();
        ContentError::Line { line: before.matches('\n').count() + 1, problem }
    })?;
    let mut associations: Vec<Association> = Vec::new();
    for each in &written.association {
        let spp = each.spp;
        let wrong = |problem: &str| {
            Err(ContentError::Whole(format!("association with spp {spp}: {problem}")))
        };
        if associations.iter().any(|association| association.spp == spp) {
            return wrong("there is another one");
        }
        let mut association = new_association(spp);
        association.is_correction_mutable = each.allow_mutable;
        match each.replay_window {
            None => {}
            Some(ahead @ 0..=0x7fff) => association.ahead = ahead,
            Some(_) => return wrong("replay-window is not from 0 to 32767"),
        }
        for written in &each.key {
            let id = written.id;
            let added = secret(&written.value.0)
                .and_then(|secret| key(&written.kind, &secret))
                .and_then(|key| add(&mut association, id, key));
            if let Err(problem) = added {
                return wrong(&format!("key {id}: {problem}"));
            }
        }
        associations.push(association);
    }
    let spp = written.spp.or_else(|| associations.first().map(|first| first.spp));
    Ok((associations, Choice { spp, key_id: written.active_key }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    /// As linuxptp's manual page has it.
    const LINUXPTP: &str = "# keys\n[security_association]\nspp 0\nallow_mutable 1\n\
        1 SHA256-128 HEX:F8ADC6B8B8E9AA709106BA42481EC9E29607334DE2C3C737A11A12931DB27F8C\n\
        2 SHA256 32 HEX:EE91D469B3A8ADC6AC8EB28E21794C706E08FDE48863828A7B0281AFCA81B17D\n\n\
        [security_association]\nspp 1\nseqid_window 20\n\
        1 AES128 HEX:FAF48EBA01E7C5966A76CB787AED4E7B\n\
        2 AES256 B64:PKTF9VQz94qPaoAzW4eE3JtFoQ8Ov1OTQSojalWyMbs=\n\
        3 SHA256 26 abcdefghijklmnopqrstuvwxyz\n";
    const TOML: &str = "spp = 1\nactive-key = 3\n\
        [[association]]\nspp = 1\nreplay-window = 20\n\
        [[association.key]]\nid = 2\ntype = \"AES128\"\nvalue = \"HEX:FAF48EBA01E7C5966A76CB787AED4E7B\"\n\
        [[association.key]]\nid = 3\ntype = \"SHA256\"\nvalue = \"secret\"\n";

    #[test]
    fn file_of_linuxptp_is_read_as_it_is() {
        let ring = parse(LINUXPTP, Choice::default()).unwrap();
        assert_eq!((ring.len(), ring.active()), (5, (0, 1)));
        let [zero, one] = &ring.associations[..] else { panic!("two associations") };
        assert!(zero.is_correction_mutable && !one.is_correction_mutable);
        assert_eq!((zero.ahead, one.ahead), (replay::AHEAD, 20));
        let choice = Choice { spp: Some(1), key_id: Some(2) };
        assert_eq!(parse(LINUXPTP, choice).unwrap().active(), (1, 2));
    }

    #[test]
    fn toml_says_the_same_and_which_key_signs() {
        let ring = parse(TOML, Choice::default()).unwrap();
        assert_eq!((ring.len(), ring.active()), (2, (1, 3)));
        assert_eq!(ring.associations[0].ahead, 20);
        let choice = Choice { key_id: Some(2), ..Choice::default() };
        assert_eq!(parse(TOML, choice).unwrap().active(), (1, 2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_key() {
        let section = "[security_association]\nspp 1\n";
        for (line, expected) in [
            ("1 AES128 HEX:00112233", "line 3: the key has the wrong length for its type"),
            ("1 AES128 HEX:0", "line 3: an odd number of hexadecimal digits"),
            ("1 AES128 HEX:zz", "line 3: not a hexadecimal digit"),
            ("1 SHA256 B64:!", "line 3: not base 64"),
            ("1 SHA256 9 topsecret1", "line 3: the key has another length than the line says"),
            ("0 SHA256 topsecret", "line 3: keys are numbered from 1"),
            (
                "1 MD5 topsecret",
                "line 3: the type is none of SHA256-128, SHA256, AES128 and AES256",
            ),
            ("spp 2", "line 3: a second spp, or one that there is already"),
            ("allow_mutable yes", "line 3: allow_mutable is neither 0 nor 1"),
            ("topsecret", "line 3: expected an option, or the number of a key"),
            ("", "no key in the association with spp 1"),
            ("1 SHA256 a\n1 SHA256 b", "line 4: the association has this key already"),
        ] {
            let error = parse(&format!("{section}{line}\n"), Choice::default()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let wrong = TOML.replace("AES128", "DES");
        let error = parse(&wrong, Choice::default()).unwrap_err().to_string();
        assert!(error.starts_with("association with spp 1: key 2: the type"), "{error}");
        let error = parse("spp = \"topsecret\"\n", Choice::default()).unwrap_err().to_string();
        assert!(error.starts_with("line 1: invalid type"), "{error}");
        let error = parse("topsecret", Choice::default()).unwrap_err().to_string();
        assert!(error.starts_with("line 1") && !error.contains("topsecret"), "{error}");
        assert!(parse("", Choice::default()).is_err());
    }

    #[test]
    fn file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, TOML).unwrap();
        for (mode, is_fine) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let result = read(&path, Choice::default());
            assert_eq!(result.is_ok(), is_fine, "{mode:o}: {result:?}");
        }
        let error = read(Path::new("/dev/zero"), Choice::default()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
