//! The importer of linuxptp's configurations: whatever the file, what comes out is a configuration
//! that the agent can use, and notes point at lines of the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptp_agent::{cli::check_configuration, linuxptp::translate};

fuzz_target!(|text: &str| {
    let translation = translate(text);
    check_configuration(&translation.table.to_string()).expect("a configuration");
    let lines = text.lines().count();
    for note in &translation.notes {
        assert!((1..=lines).contains(&note.line), "{note:?}");
    }
    let again = translate(text);
    assert_eq!(again, translation);
});
