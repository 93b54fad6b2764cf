//! What is told to those who watch a clock: whatever is read is written and read again as the same.
use ptp_common::wire::{EventTiming, Message, NetSyncResponse, TlvType, Tlvs};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    for tlv in message.tlvs {
        if let Some((source, records)) = EventTiming::read(tlv) {
            for record in records {
                let mut room = [0; EventTiming::MAX_LENGTH];
                let length = record.emit(source, &mut room).expect("the longest fits");
                let tlvs = Tlvs::new(&room[..length]).expect("a whole TLV");
                let again = tlvs.iter().next().and_then(EventTiming::read);
                let (again_of, mut again) = again.expect("the same kind");
                assert_eq!((again_of, again.next()), (source, Some(record)));
            }
        }
        if tlv.kind == TlvType::PTPMON_RESP
            && let Some(read) = NetSyncResponse::read(tlv.value)
            && read.parent_address.address.len() <= 16
        {
            let mut value = [0; NetSyncResponse::MAX_LENGTH];
            let length = read.value(&mut value);
            assert_eq!(NetSyncResponse::read(&value[..length]), Some(read));
        }
    }
}
