//! The metric families: their names, help texts and types, and how figures become the `prometheus`
//! crate's own.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::histogram::Histogram;

/// Name, help text and type of a family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its help text.
    pub help: &'static str,
    /// What its series are.
    pub kind: MetricType,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: Family =
            Family { name: $name, help: $help, kind: MetricType::$kind };)*
        /// All of them.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD_INFO = GAUGE "ptp_agent_build_info" "Version of the agent; always 1.";
    OFFSET = GAUGE "ptp_offset_from_master_seconds"
        "Local clock minus grandmaster clock at the last sample.";
    PATH_DELAY = GAUGE "ptp_mean_path_delay_seconds"
        "Mean propagation time of one way to the time transmitter.";
    FREQUENCY = GAUGE "ptp_clock_frequency_adjustment_ratio"
        "Correction applied to the clock's frequency (1e-6 is 1 ppm).";
    ERROR_BOUND = GAUGE "ptp_clock_error_bound_seconds"
        "Bound on the magnitude of local clock minus grandmaster clock; grows while no sample comes.";
    ANSWERS = COUNTER "ptp_answers_total"
        "Requests of clients by where they were answered (kernel or agent) and what became of them.";
    UNICAST_CLIENTS = GAUGE "ptp_unicast_clients" "Clients that have been granted unicast messages.";
    UNICAST_SERVERS = GAUGE "ptp_unicast_servers"
        "Servers that are asked for unicast messages, by how they stand.";
    UNICAST_GRANTS = GAUGE "ptp_unicast_grants"
        "Grants that hold: given to others (tx) or by others (rx).";
    UNICAST_REQUESTS = COUNTER "ptp_unicast_requests_total"
        "Requests of clients for unicast messages, and ends of grants, by what became of them.";
    UNICAST_MESSAGES = COUNTER "ptp_unicast_messages_total"
        "Announce and Sync that had been granted: sent in time, late (10 ms), or skipped.";
    MANAGEMENT_REQUESTS = COUNTER "ptp_management_requests_total"
        "Management messages that came here, by what became of them.";
    MANAGEMENT_SUBSCRIBERS = GAUGE "ptp_management_subscribers"
        "Programs that have subscribed to events of management.";
    MANAGEMENT_EVENTS = COUNTER "ptp_management_events_total"
        "Events that those were told of, or could not be.";
    SLAVE_EVENTS = COUNTER "ptp_slave_events_total"
        "Messages of slave event monitoring that were sent, or that nobody took.";
    LINK_DELAY = GAUGE "ptp_link_delay_seconds"
        "Shortest mean delay of late of the link to the neighbour, where it is measured.";
    NEIGHBOR_RATE = GAUGE "ptp_neighbor_rate_ratio"
        "Rate of the neighbour's clock over the local monotonic one, less one (1e-6 is 1 ppm).";
    CAPABLE = GAUGE "ptp_link_capable" "1 while a link is asCapable, where anybody asks; 0 otherwise.";
    CAPABLE_CHANGES = COUNTER "ptp_link_capable_changes_total" "How often a link has become asCapable, or ceased to be.";
    PRECISION = GAUGE "ptp_clock_precision_seconds"
        "To within what the local clock repeats; no claim about the asymmetry of the path.";
    CAUSAL_INTERVAL = GAUGE "ptp_causal_interval_seconds"
        "Ends of where local clock minus grandmaster clock can be by causality alone.";
    HOST_OFFSET = GAUGE "ptp_host_clock_offset_seconds"
        "CLOCK_REALTIME minus grandmaster clock as UTC, whatever clock the agent follows with.";
    HOST_OFFSET_BOUND = GAUGE "ptp_host_clock_offset_bound_seconds"
        "The true offset of CLOCK_REALTIME is no farther from what is told.";
    HOST_READ_AT = GAUGE "ptp_host_clock_read_timestamp_seconds"
        "What CLOCK_REALTIME showed when its offset was as told.";
    PARENT = GAUGE "ptp_parent_info" "Grandmaster and parent that the clock's time comes from; always 1.";
    LAST_SAMPLE = GAUGE "ptp_last_sample_timestamp_seconds"
        "Unix time of the last sample; its age tells a dead clock from a good one.";
    PORT_STATE = GAUGE "ptp_port_state" "1 for the state that the port is in, 0 for the others.";
    SERVO_STATE = GAUGE "ptp_servo_state" "1 for the state that the servo is in, 0 for the others.";
    STRATEGY = GAUGE "ptp_strategy"
        "1 for how requests are sent and Sync messages used at present, 0 for the other ways.";
    MESSAGES = COUNTER "ptp_messages_total" "PTP messages accepted and sent.";
    TIMESTAMPS = COUNTER "ptp_timestamps_total"
        "Timestamps by where they were taken and what became of them.";
    TIMESTAMP_SOURCE = GAUGE "ptp_timestamp_source"
        "1 for the capture point in use, 0 for the others.";
    TIMESTAMP_NOISE = GAUGE "ptp_timestamp_noise_seconds"
        "Mean deviation of a capture point's one-way residuals when the points were last compared.";
    PRIMING = GAUGE "ptp_transmit_priming" "1 where event messages are primed, 0 where not.";
    EXCHANGES = COUNTER "ptp_exchanges_total"
        "Measurements of offset and delay, completed or given up.";
    RING_LOST = COUNTER "ptp_ring_lost_total"
        "Timestamp records lost because the ring buffer, one for all interfaces, was full.";
    STEPS = COUNTER "ptp_clock_steps_total" "Times that the clock was stepped.";
    TIMESTAMP_DIFFERENCE = HISTOGRAM "ptp_timestamp_difference_seconds"
        "Stamp of a kernel program minus the kernel's own software stamp of the same packet.";
    RESIDENCE = HISTOGRAM "ptp_residence_seconds"
        "Time that PTP event messages spent in this host, by the port by which they left.";
    CORRECTED = COUNTER "ptp_corrected_total"
        "PTP messages that a transparent clock has let pass, by what became of them.";
    SOURCES = GAUGE "ptp_sources"
        "Sources of time that are heard, by whether they can be right together with most others.";
    SERVERS = GAUGE "ptp_servers"
        "Servers that are asked by CSPTP or SPTP, by whether they answer.";
    SOURCE_SELECTED = GAUGE "ptp_source_selected"
        "1 for the source that the clock follows: ptp, csptp, sptp or ntp, and its domain.";
    NTP_OFFSET = GAUGE "ptp_ntp_offset_seconds"
        "Time of a server of NTP minus the local clock at the latest exchange.";
    NTP_DELAY = GAUGE "ptp_ntp_delay_seconds" "Round trip of the latest exchange with a server of NTP.";
    NTP_ROOT_DISTANCE = GAUGE "ptp_ntp_root_distance_seconds"
        "How far a server of NTP is from its source at the most, by its own words.";
    NTP_STRATUM = GAUGE "ptp_ntp_stratum" "Stratum of a server of NTP.";
    NTP_ANSWERING = GAUGE "ptp_ntp_answering"
        "1 while a server of NTP answers; 0 after four requests in a row without an answer, or where it refuses.";
    NTP_EXCHANGES = COUNTER "ptp_ntp_exchanges_total"
        "Requests sent to a server of NTP, and those whose exchange was completed.";
    NTP_NTS_STATE = GAUGE "ptp_ntp_nts_state"
        "1 for how a server of NTP that is asked with NTS is protected, 0 otherwise.";
    NTP_NTS = COUNTER "ptp_ntp_nts_total"
        "Key exchanges with a server of NTP, its refusals of cookies, and answers that were not authentic.";
    NTP_REQUESTS = COUNTER "ptp_ntp_requests_total"
        "Requests of NTP that came here, by what became of them.";
    SYNCE_QUALITY = GAUGE "ptp_synce_quality_info"
        "Quality level that ESMC of synchronous Ethernet tells on an interface; always 1.";
    SYNCE_RANK = GAUGE "ptp_synce_quality_rank"
        "Place of that quality level in their order: 0 is ePRTC, 3 a primary reference, 9 equipment, 15 not to be used.";
    ESMC_FRAMES = COUNTER "ptp_esmc_frames_total"
        "Frames of ESMC that came in by an interface, by what became of them.";
    DPLL_LOCK = GAUGE "ptp_dpll_lock_status"
        "1 for the state that a DPLL of the kernel is in, 0 for the others.";
    PPS_OFFSET = GAUGE "ptp_pps_offset_seconds"
        "Clock minus pulse per second at the latest pulse that was given its second.";
    PPS_JITTER = GAUGE "ptp_pps_jitter_seconds"
        "Mean distance of a pulse from where those before made it expected.";
    PPS_STATE = GAUGE "ptp_pps_state"
        "1 for how it stands with the pulse per second, 0 for the other states.";
    PPS_PULSES = COUNTER "ptp_pps_pulses_total"
        "Edges of a pulse per second by what became of them, and pulses that did not come.";
    NMEA_SENTENCES = COUNTER "ptp_nmea_sentences_total"
        "Sentences of a receiver by what became of them.";
    NMEA_FIX = GAUGE "ptp_nmea_fix" "1 while a receiver says that it knows the time.";
    ALARM = GAUGE "ptp_alarm" "1 while the alarm is raised, 0 otherwise.";
}

/// All families while they are filled.
pub(super) struct Families(Vec<Vec<Metric>>);

impl Default for Families {
    fn default() -> Self {
        Self(vec![Vec::new(); FAMILIES.len()])
    }
}

impl Families {
    /// Adds a gauge or a counter.
    pub(super) fn add(&mut self, family: &Family, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        if family.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(family, metric);
    }

    /// Adds a histogram.
    pub(super) fn add_histogram(
        &mut self,
        family: &Family,
        labels: &[(&str, &str)],
        histogram: &Histogram,
    ) {
        let mut metric = labelled(labels);
        metric.set_histogram(histogram.to_proto());
        self.push(family, metric);
    }

    /// Adds a histogram of other bounds.
    pub(super) fn add_proto(
        &mut self,
        family: &Family,
        labels: &[(&str, &str)],
        histogram: prometheus::proto::Histogram,
    ) {
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    fn push(&mut self, family: &Family, metric: Metric) {
        let at = FAMILIES.iter().position(|each| each.name == family.name);
        if let Some(series) = at.and_then(|at| self.0.get_mut(at)) {
            series.push(metric);
        }
    }

    /// What a collector is to return, in the order of [`FAMILIES`].
    pub(super) fn finish(self) -> Vec<MetricFamily> {
        FAMILIES
            .iter()
            .zip(self.0)
            .map(|(Family { name, help, kind }, series)| {
                let mut family = MetricFamily::default();
                family.set_name((*name).into());
                family.set_help((*help).into());
                family.set_field_type(*kind);
                family.set_metric(series);
                family
            })
            .collect()
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).into());
        label.set_value((*value).into());
        label
    });
    Metric::from_label(labels.collect())
}
