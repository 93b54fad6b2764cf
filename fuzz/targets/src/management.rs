//! Management TLVs: whatever is read is written and read again as the same.
use ptp_common::wire::{
    Message,
    management::{ManagementData, ManagementTlv},
};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    for tlv in message.tlvs {
        let Some(read) = ManagementTlv::read(tlv) else { continue };
        let mut again = vec![0xa5; tlv.wire_length() + 8];
        let length = read.emit(&mut again).expect("there is room");
        let ManagementTlv::Data { id, payload } = read else { continue };
        assert_eq!(length, tlv.wire_length());
        let Some(data) = ManagementData::read(id, payload) else { continue };
        let mut room = [0; ManagementData::MAX_LENGTH];
        let length = data.emit(&mut room).expect("the longest fits");
        assert_eq!(ManagementData::read(id, &room[..length]), Some(data));
    }
}
