//! Claims about the objects under libbpf, a loader that shares no line with the one the agent uses:
//! every program passes the verifier as a new kernel and as an old kernel would get it, the maps are
//! what they are meant to be, and a packet gives a record.

use bpf_tests::{
    frames::{Expected, Payload, Recipe},
    libbpf::{Loaded, MapShape},
    need,
    objects::{BENCH_OBJECT, Object, kernel_programs, objects},
};
use libbpf_sys::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_RINGBUF,
    BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP,
};
use ptp_agent::capture::Features;
use ptp_common::{
    ntp::{self, NtpPacket, NtpTimestamp},
    record::{Hook, Record},
};

/// The flags of the object for a kernel that has what `features` says.
fn load(object: &Object, features: Features, xmit: bool) -> Loaded {
    let flags = [
        ("HAS_TAI", [u8::from(features.tai)]),
        ("HAS_XDP_LOAD_BYTES", [u8::from(features.xdp_load_bytes)]),
        ("HAS_HWTSTAMP", [u8::from(features.hwtstamp)]),
        ("WANT_XMIT", [u8::from(xmit)]),
    ];
    let globals = flags.each_ref().map(|(name, value)| (*name, &value[..]));
    Loaded::load(&object.bytes, &globals).unwrap_or_else(|error| panic!("{}: {error}", object.name))
}

#[test]
fn every_program_and_map_loads_whatever_the_kernel_is_said_to_have() {
    need!(kernel_programs());
    for object in objects() {
        for (features, xmit) in
            [(Features::default(), false), (Features::default(), true), (Features::probe(), true)]
        {
            let loaded = load(&object, features, xmit);
            let expected = [
                ("ntp_tc_egress", BPF_PROG_TYPE_SCHED_CLS),
                ("ntp_tc_ingress", BPF_PROG_TYPE_SCHED_CLS),
                ("ptp_dropped", BPF_PROG_TYPE_RAW_TRACEPOINT),
                ("ptp_start_xmit", BPF_PROG_TYPE_RAW_TRACEPOINT),
                ("ptp_tc_egress", BPF_PROG_TYPE_SCHED_CLS),
                ("ptp_tc_ingress", BPF_PROG_TYPE_SCHED_CLS),
                ("ptp_xdp_ingress", BPF_PROG_TYPE_XDP),
                ("ptp_xmit_done", BPF_PROG_TYPE_RAW_TRACEPOINT),
            ];
            assert_eq!(loaded.programs(), expected.map(|(name, kind)| (name.to_owned(), kind)));
            let ring = loaded.map_shape("RECORDS").unwrap();
            assert_eq!((ring.kind, ring.entries), (BPF_MAP_TYPE_RINGBUF, 2 * 1024 * 1024));
            assert_eq!(
                loaded.map_shape("COUNTS").unwrap(),
                MapShape { kind: BPF_MAP_TYPE_PERCPU_ARRAY, key: 4, value: 16, entries: 8 }
            );
            for globals in [".rodata", ".bss"] {
                let shape = loaded.map_shape(globals).unwrap();
                assert_eq!((shape.kind, shape.entries), (BPF_MAP_TYPE_ARRAY, 1), "{globals}");
            }
        }
    }
}

#[test]
fn packet_gives_a_record_under_the_other_loader_too() {
    need!(kernel_programs());
    let recipe = Recipe::sync_on_udp4();
    let frame = recipe.frame();
    for object in objects() {
        for features in [Features::default(), Features::probe()] {
            let loaded = load(&object, features, false);
            for (program, hook, pass) in [
                ("ptp_tc_ingress", Hook::TcIngress, u32::MAX),
                ("ptp_tc_egress", Hook::TcEgress, u32::MAX),
                ("ptp_xdp_ingress", Hook::XdpIngress, 2),
            ] {
                assert_eq!(loaded.run(program, &frame), Ok(pass), "{program}");
                let entries = loaded.drain("RECORDS").unwrap();
                assert_eq!(entries.len(), 1, "{program}");
                let record = Record::parse(&entries[0]).unwrap();
                assert_eq!(record.hook, hook);
                assert_eq!(record.tai_ns != 0, features.tai);
                assert_eq!(Some(Expected::of(&record)), recipe.expected(frame.len()), "{program}");
            }
        }
    }
}

#[test]
fn packets_of_ntp_are_the_business_of_their_own_programs_and_of_no_others() {
    need!(kernel_programs());
    let mut recipe = Recipe::sync_on_udp4();
    let ptp = recipe.frame();
    recipe.message = NtpPacket::request(NtpTimestamp(77), 4).to_bytes().to_vec();
    let [request, answer] = [[40_000, ntp::PORT], [ntp::PORT, 40_000]].map(|own| {
        let mut recipe = recipe.clone();
        if let Payload::Ipv4 { ports, .. } = &mut recipe.payload {
            *ports = own;
        }
        recipe.frame()
    });
    for object in objects() {
        let loaded = load(&object, Features::probe(), false);
        for (program, frame, records) in [
            ("ntp_tc_ingress", &request, 1),
            ("ntp_tc_egress", &request, 1),
            ("ntp_tc_ingress", &answer, 1),
            ("ntp_tc_egress", &answer, 1),
            ("ntp_tc_ingress", &ptp, 0),
            ("ntp_tc_egress", &ptp, 0),
            ("ptp_tc_ingress", &request, 0),
            ("ptp_tc_egress", &answer, 0),
        ] {
            assert_eq!(loaded.run(program, frame), Ok(u32::MAX), "{program}");
            let entries = loaded.drain("RECORDS").unwrap();
            assert_eq!(entries.len(), records, "{program}");
            for entry in &entries {
                let record = Record::parse(entry).unwrap();
                assert_eq!(record.message(), recipe.message);
            }
        }
    }
}

#[test]
fn object_for_measurements_loads_too() {
    need!(kernel_programs());
    let has_tai = [u8::from(Features::probe().tai)];
    for value in [[0], has_tai] {
        let loaded = Loaded::load(BENCH_OBJECT, &[("HAS_TAI", &value)])
            .unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<String> = loaded.programs().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["clock_mono", "clock_tai", "empty_start_xmit", "empty_tc", "empty_xdp"]);
    }
}
