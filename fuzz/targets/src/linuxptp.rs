//! The importer of linuxptp's configurations: whatever the file, what comes out is a configuration
//! that the agent can use, and notes point at lines of the file.
use ptp_agent::{cli::check_configuration, linuxptp::translate};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let translation = translate(text);
    check_configuration(&translation.table.to_string()).expect("a configuration");
    let lines = text.lines().count();
    for note in &translation.notes {
        assert!((1..=lines).contains(&note.line), "{note:?}");
    }
    let again = translate(text);
    assert_eq!(again, translation);
}
