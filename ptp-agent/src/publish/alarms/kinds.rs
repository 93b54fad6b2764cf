//! The alarms: their names, what they mean, who can raise them and how patient they are.

use ptp_common::time::Duration;

use super::hysteresis::Patience;

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a grandmaster.
    Receiver,
    /// Is one.
    Transmitter,
    /// Watches others.
    Observer,
    /// Corrects what the host forwards.
    Transparent,
}

macro_rules! alarms {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $summary:literal,
        [$($role:ident)*], raise $raise:literal s, clear $clear:literal s;)*) => {
        /// An alarm. The names are a contract: they are labels of metrics, words in the log and
        /// headings in the documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Alarm { $($(#[doc = $doc])* $variant,)* }

        impl Alarm {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in JSON, in the log and in metric labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it says, in a few words.
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)* }
            }

            /// What it means, and where to look.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc, "\n",)*).trim(),)* }
            }

            /// The page that says what to do, relative to the root of the project and, where the
            /// package is installed, to `/usr/share/doc/ptp-agent`.
            pub const fn runbook(self) -> &'static str {
                match self { $(Self::$variant => concat!("docs/alarms/", $name, ".md"),)* }
            }

            /// Whether such an agent can raise it.
            pub const fn applies_to(self, role: Role) -> bool {
                match self { $(Self::$variant => matches!(role, $(Role::$role)|*),)* }
            }

            pub(super) const fn patience(self) -> Patience {
                match self { $(Self::$variant => Patience {
                    raise: Duration::from_secs($raise),
                    clear: Duration::from_secs($clear),
                },)* }
            }
        }
    };
}

alarms! {
    /// The link of an interface is down, or the interface is gone.
    /// Look at cable, driver and `ip link`; the agent goes on by itself when it comes back.
    LinkDown = "link_down", "an interface is down or gone",
        [Receiver Transmitter Observer Transparent], raise 2 s, clear 2 s;
    /// No time transmitter is heard although a link is up.
    /// Is the grandmaster in this domain and on this transport? Does multicast reach this host?
    NoAnnounce = "no_announce", "no Announce from any time transmitter",
        [Receiver Observer], raise 10 s, clear 2 s;
    /// A time transmitter announces itself but sends no Sync, or they do not arrive.
    /// Event messages use UDP port 319, Announce uses 320: a firewall may pass only one of them.
    NoSync = "no_sync", "no Sync from the time transmitter",
        [Receiver Observer], raise 0 s, clear 2 s;
    /// Most two-step Sync messages are without their Follow_Up, which carries their time.
    /// Follow_Up uses UDP port 320; look at firewalls and at the time transmitter.
    NoFollowUp = "no_follow_up", "Sync without Follow_Up",
        [Receiver], raise 0 s, clear 5 s;
    /// Most requests for the path delay get no answer.
    /// Does the time transmitter use the same delay mechanism? Do Delay_Req messages reach it?
    NoDelayResp = "no_delay_resp", "delay requests are not answered",
        [Receiver], raise 0 s, clear 5 s;
    /// Most received event messages have no timestamp.
    /// The programs are not where the packets come in: `ptp-agent doctor` says what is attached.
    NoRxStamp = "no_rx_stamp", "received messages without timestamps",
        [Receiver Transmitter], raise 0 s, clear 5 s;
    /// Most sent event messages have no timestamp.
    /// A queueing discipline may drop or hold them, or another program has replaced the hooks.
    NoTxStamp = "no_tx_stamp", "sent messages without timestamps",
        [Receiver Transmitter], raise 0 s, clear 5 s;
    /// Packets pass an interface without reaching the kernel programs: another program on the hook ends
    /// the chain before them. They are attached again; the kernel's own stamps stand in until that helps.
    HooksDisplaced = "hooks_displaced", "packets do not reach the kernel programs",
        [Receiver Transmitter Observer], raise 0 s, clear 5 s;
    /// More than one stamp in ten comes from another point than the chosen one.
    /// Accuracy suffers a little; the log says which points were compared.
    StampSourceDegraded = "stamp_source_degraded", "timestamps from a second choice of source",
        [Receiver Transmitter], raise 10 s, clear 30 s;
    /// More than one sent event message in ten has stamps that lie too far apart to be used: the machine did
    /// something else while it was being sent. A grandmaster's Sync then has no Follow_Up.
    /// The host is overloaded, or its virtual processors are taken away; accuracy does not suffer, the rate does.
    StampsInterrupted = "stamps_interrupted", "sent messages interrupted between their timestamps",
        [Receiver Transmitter], raise 10 s, clear 30 s;
    /// The ring buffer between kernel and agent was full and records were lost, or messages came faster than the agent
    /// took them from its sockets.
    /// The host is overloaded or flooded with PTP packets; a larger ring (`--ring-kib`) may help.
    RingLoss = "ring_loss", "records or messages lost because they came too fast",
        [Receiver Transmitter Observer], raise 0 s, clear 60 s;
    /// A time transmitter is there, but the servo has not locked for a minute.
    /// Other alarms say why; without one, the path's delay is too unsteady.
    NotSynchronized = "not_synchronized", "the servo does not lock",
        [Receiver], raise 60 s, clear 0 s;
    /// No Sync has come for a while: the clock runs on with what was learnt, and drifts.
    /// `ptp_clock_error_bound_seconds` says how far it may be off.
    Holdover = "holdover", "the clock runs without a time transmitter",
        [Receiver], raise 0 s, clear 5 s;
    /// The offset has been above the threshold (`offset-threshold`) for some time.
    /// Where the clock is only watched, this is the error of the host's clock.
    OffsetAboveThreshold = "offset_above_threshold", "the offset is above the threshold",
        [Receiver Observer], raise 5 s, clear 10 s;
    /// The offset is just the seconds between TAI and UTC.
    /// One side serves or keeps the other's time scale: see `currentUtcOffset` and `ptpTimescale`.
    TimeScaleMismatch = "time_scale_mismatch", "TAI and UTC are confused",
        [Receiver Observer], raise 5 s, clear 5 s;
    /// Another grandmaster has taken over in the last five minutes.
    /// Expected in maintenance; otherwise ask why the better one has gone.
    GrandmasterChanged = "grandmaster_changed", "another grandmaster",
        [Receiver Observer], raise 0 s, clear 300 s;
    /// The clock was stepped in the last five minutes although it had been locked.
    /// Time was not continuous: programs that measure with this clock have seen a jump.
    ClockStepped = "clock_stepped", "the clock was stepped",
        [Receiver], raise 0 s, clear 300 s;
    /// The clock could not be adjusted; the log has the kernel's or the policy's reason.
    /// Measuring goes on, the clock is not steered meanwhile.
    ClockError = "clock_error", "the clock cannot be adjusted",
        [Receiver], raise 0 s, clear 30 s;
    /// Another program has stepped the clock that this agent steers; one that changes its frequency
    /// ends the agent, because two would fight.
    /// Stop one of the two: chronyd, ntpd, systemd-timesyncd, phc2sys, ptp4l ...
    SteeredElsewhere = "steered_elsewhere", "another program steers the clock",
        [Receiver], raise 0 s, clear 60 s;
    /// By the estimate the clock is where causality says that it cannot be: packets would have arrived before
    /// they were sent. The estimate was set to the end of the possible, and learns anew; the bound holds.
    EstimateClipped = "estimate_clipped", "the estimate has left what causality allows",
        [Receiver], raise 2 s, clear 30 s;
    /// Timestamps contradict each other: by some of them time is where it cannot be by the others.
    /// Somebody's stamps lie, or time has stepped; until it is known which, the bound has both in it.
    TimeInDoubt = "time_in_doubt", "timestamps contradict each other",
        [Receiver], raise 3 s, clear 30 s;
    /// The grandmaster's time is implausible, too far away, or nobody knows what it is in UTC: it is withheld
    /// from the clock, or from the other programs that are to be given it. Log and status have the reason.
    TimeWithheld = "time_withheld", "time is not passed on",
        [Receiver], raise 5 s, clear 5 s;
    /// Messages that nobody sends by himself: repeated or old ones, answers to nothing, messages in this
    /// clock's or the time transmitter's name that contradict the others. None of them was used.
    /// Somebody may be playing; a loop, a cloned machine or a doubled packet looks the same. The detail says what
    /// was counted.
    SpoofingSuspected = "spoofing_suspected", "messages that are not what they say",
        [Receiver], raise 10 s, clear 60 s;
    /// Grandmasters that are heard cannot all be right: where the clock must lie against one, it cannot be by another.
    /// One of them is broken, on another time scale, or not what it says. Detail and `status` say which
    /// agree; `on-disagreement` says what is done.
    GrandmasterContradicted = "grandmaster_contradicted", "grandmasters contradict each other",
        [Receiver], raise 0 s, clear 5 s;
    /// The clock is not where it usually is against servers of NTP, by more than their round trips explain, and two or more
    /// see it alike: the grandmaster is wrong by so much, or the path to it is not what it was.
    /// Less than this contradicts nothing yet; the detail says how far and by how many.
    GrandmasterShifted = "grandmaster_shifted", "the clock has moved against servers of NTP",
        [Receiver], raise 0 s, clear 10 s;
    /// A server of NTP that is to be asked has not answered four requests in a row, or has refused service.
    /// While witnesses are silent, a grandmaster that lies may go unseen. The detail says which and how many are left.
    WitnessSilent = "witness_silent", "a server of NTP does not answer",
        [Receiver], raise 0 s, clear 5 s;
    /// More clocks announce themselves than there is room for; the best are kept.
    /// No network has so many time transmitters: somebody invents them, or many clocks run as masters.
    TablePressure = "table_pressure", "too many clocks announce themselves",
        [Receiver], raise 5 s, clear 60 s;
    /// The shortest round trip to the time transmitter has changed by more than its noise for half a minute.
    /// Another route or a new load does that; so does somebody who delays messages in one direction, which moves
    /// the clock by up to half of the change.
    DelayAttackSuspected = "delay_attack_suspected", "the round trip has changed",
        [Receiver], raise 0 s, clear 60 s;
    /// More requests come than are answered. Clients that ask regularly still get their answers.
    /// Somebody floods, or there are more clients than one server can have.
    RequestFlood = "request_flood", "more delay requests than are answered",
        [Transmitter], raise 5 s, clear 30 s;
    /// Requests are to be answered in the kernel, or there in another time transmitter's name, and are not: the detail
    /// says why. They are answered by the agent or by the other, as far as that can keep up.
    NoKernelAnswers = "no_kernel_answers", "the kernel does not answer as it was asked to",
        [Transmitter], raise 5 s, clear 2 s;
    /// For sixteen samples no single exchange has been near the filtered offset: the servo takes what is
    /// measured for noise. Stamps may be wrong, or somebody moves time where the servo does not believe it.
    RawOffsetFar = "raw_offset_far", "what is measured is far from what is believed",
        [Receiver], raise 5 s, clear 10 s;
    /// Messages that should be authenticated are not, or not by a key that is known here; none of them is used.
    /// Somebody sends in another's name, or a host has other keys or none. The detail says why and from whom
    /// the last one came.
    AuthenticationFailed = "authentication_failed", "messages are not authentic",
        [Receiver Transmitter Observer], raise 0 s, clear 60 s;
    /// No pulse per second comes, or none any more: its line, its receiver or its device is gone.
    /// Where the clock follows it, it runs on with what was learnt.
    PulseLost = "pulse_lost", "no pulse per second",
        [Receiver], raise 3 s, clear 5 s;
    /// More than a quarter of the latest edges of a pulse were not where a second begins (doubled, jittering, half
    /// a second off), or others call the pulses another second. None of the wrong edges was used.
    PulseRefused = "pulse_refused", "the pulse per second is wrong",
        [Receiver], raise 5 s, clear 30 s;
    /// A pulse per second comes, and nobody says which second it is: it is not used. PTP, servers of NTP or a
    /// receiver's sentences (`--nmea`) must know the time to better than half a second, and agree.
    PulseUnnumbered = "pulse_unnumbered", "nobody numbers the pulses",
        [Receiver], raise 15 s, clear 2 s;
    /// The date that a receiver tells is 1024 weeks or more in the past: its firmware has lost count of GPS's weeks.
    /// The date was brought forward, which is right for 19 years from the program's build.
    WeekRollover = "week_rollover", "the receiver's date is 1024 weeks old",
        [Receiver], raise 0 s, clear 60 s;
    /// Metrics, the status socket, the management socket or an export for other programs cannot be had; the
    /// log or the detail says which and why. Time is kept all the same, and the agent tries again every ten seconds.
    EndpointUnavailable = "endpoint_unavailable", "metrics, a socket or an export cannot be served",
        [Receiver Transmitter Observer Transparent], raise 0 s, clear 0 s;
    /// The frequency of a link has a lower quality level than it usually has, by what ESMC of synchronous Ethernet says.
    /// A reference in the network was lost, or another path is used; clocks that take their frequency from this
    /// link are worse for it. PTP itself does not depend on it.
    QualityLevelLowered = "quality_level_lowered", "the link's frequency has become worse",
        [Receiver Transmitter Observer], raise 0 s, clear 5 s;
    /// ESMC of synchronous Ethernet has come in by an interface, and comes no more: nobody knows how good the frequency
    /// of that link is. The neighbour was reconfigured or replaced, or drops slow protocols.
    EsmcLost = "esmc_lost", "no ESMC on a link that had it",
        [Receiver Transmitter Observer], raise 0 s, clear 2 s;
    /// More than one message in ten leaves without the correction that it should have: nobody saw its event
    /// message arrive or leave. Clients behind this host see its queues in these. The detail says why.
    CorrectionsMissing = "corrections_missing", "messages leave uncorrected",
        [Transparent], raise 5 s, clear 10 s;
    /// A program of this host sends messages in the name of a clock that was heard on a port: another
    /// transparent clock, as linuxptp's ptp4l with clock_type E2E_TC or P2P_TC. Everything arrives twice.
    /// Stop one of the two.
    DoubleCorrection = "double_correction", "another transparent clock works on the same ports",
        [Transparent], raise 0 s, clear 30 s;
    /// A port belongs to a switch in hardware, which forwards without this host: what passes there is not
    /// corrected. Switch the offload off for PTP, or use the hardware's own transparent clock.
    HardwareForwarding = "hardware_forwarding", "hardware forwards between ports",
        [Transparent], raise 5 s, clear 5 s;
}
