//! What authentication costs a message, by algorithm: to sign it and to check it, beside what it takes to read the same
//! message plain. `cargo bench -p ptp-agent --bench authentication`.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use ptp_agent::security::{
    Associations, MAX_SEALED, Policy,
    file::{Choice, parse},
};
use ptp_common::{
    time::Time,
    wire::{Body, ClockIdentity, Header, Message, PortIdentity, Timestamp, Tlvs},
};

const KEYS: &str = "[security_association]\nspp 1\nseqid_window 0\n\
    1 SHA256-128 HEX:F8ADC6B8B8E9AA709106BA42481EC9E29607334DE2C3C737A11A12931DB27F8C\n\
    2 SHA256 HEX:EE91D469B3A8ADC6AC8EB28E21794C706E08FDE48863828A7B0281AFCA81B17D\n\
    3 AES128 HEX:FAF48EBA01E7C5966A76CB787AED4E7B\n\
    4 AES256 B64:PKTF9VQz94qPaoAzW4eE3JtFoQ8Ov1OTQSojalWyMbs=\n";

fn messages(criterion: &mut Criterion) {
    let source = PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 1 };
    let body =
        Body::DelayResp { receive_timestamp: Timestamp::ZERO, requesting_port_identity: source };
    let mut plain = [0; 54];
    let message = Message { header: Header::new(source, 1), body, tlvs: Tlvs::NONE };
    message.emit(&mut plain).expect("there is room");
    let mut group = criterion.benchmark_group("message");
    group.bench_function("plain, read", |bencher| {
        bencher.iter(|| Message::parse(black_box(&plain)).is_ok());
    });
    for (key, name) in [(1, "SHA256-128"), (2, "SHA256"), (3, "AES128"), (4, "AES256")] {
        let choice = Choice { spp: Some(1), key_id: Some(key) };
        let keys = Arc::new(parse(KEYS, choice).expect("good keys"));
        let policy = Policy { keys, is_required: true, domains: vec![0] };
        let mut associations = Associations::new(policy);
        let mut buffer = [0; MAX_SEALED];
        let sealed = associations.seal(&plain, &mut buffer).expect("there is room").to_vec();
        group.bench_function(format!("{name}, signed"), |bencher| {
            bencher.iter(|| associations.seal(black_box(&plain), &mut buffer).is_ok());
        });
        group.bench_function(format!("{name}, checked"), |bencher| {
            bencher.iter(|| associations.open(Time::ZERO, 0, black_box(&sealed)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
