//! The ring record: bytes of any length are read or refused, and the message that a record carries
//! goes through the parser that meets it next.
use ptp_common::{
    record::{MESSAGE_CAPACITY, RECORD_SIZE, RECORD_VERSION, Record, RecordError},
    wire::MessageView,
};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    read(bytes);
    // The fuzzer need not find the size and the version first.
    let mut image = [0; RECORD_SIZE];
    for (place, byte) in image[1..].iter_mut().zip(bytes) {
        *place = *byte;
    }
    image[0] = RECORD_VERSION;
    read(&image);
}

fn read(bytes: &[u8]) {
    match Record::parse(bytes) {
        Ok(record) => {
            assert_eq!(bytes.len(), RECORD_SIZE);
            assert!(record.message().len() <= MESSAGE_CAPACITY);
            assert!(record.vlan_count <= 2);
            if let Ok(view) = MessageView::from_prefix(record.message()) {
                let _ = (view.header(), view.body(), view.tlvs());
            }
        }
        Err(RecordError::Size(size)) => assert_ne!(size, RECORD_SIZE),
        Err(RecordError::Version(version)) => assert_ne!(version, RECORD_VERSION),
        Err(RecordError::Field(..)) => assert_eq!(bytes.len(), RECORD_SIZE),
    }
}
