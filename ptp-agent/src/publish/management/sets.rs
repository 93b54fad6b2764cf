//! What is known of a clock that management asks for: all its data sets, as they were last published.

use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet, TimeProperties},
    wire::{
        AlternateTimeOffset, ClockIdentity, DisplayName, PortIdentity,
        management::{
            CmldsInfo, ExternalGrandmaster, GrandmasterSettings, NetworkProtocol, PortCorrections,
            PortDataSetNp, PortServiceStats, PortStats, PowerProfileSettings, TimeStatus,
        },
    },
};

use super::settings::{PortSetting, Setting};

/// `neighborPropDelayThresh` where nobody has said any, ns, as linuxptp has it.
pub const USUAL_THRESHOLD_NS: u32 = 20_000_000;

/// All data sets of a clock.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSets {
    /// `defaultDS`.
    pub default: DefaultDataSet,
    /// `currentDS`.
    pub current: CurrentDataSet,
    /// `parentDS`.
    pub parent: ParentDataSet,
    /// `timePropertiesDS`.
    pub time_properties: TimeProperties,
    /// linuxptp's TIME_STATUS_NP.
    pub time_status: TimeStatus,
    /// What it says of itself as a grandmaster.
    pub grandmaster: GrandmasterSettings,
    /// Whether its time may be said to be on another scale than it is: a clock of its own follows what it says, the
    /// host's does not.
    pub is_time_scale_fixed: bool,
    /// SYNCHRONIZATION_UNCERTAIN_NP, if anybody has said it.
    pub uncertain: Option<bool>,
    /// EXTERNAL_GRANDMASTER_PROPERTIES_NP.
    pub external: ExternalGrandmaster,
    /// `pathTraceDS`: whether it is told, and the list.
    pub path_trace: (bool, Vec<ClockIdentity>),
    /// Local times that are announced.
    pub alternates: Alternates,
    /// Whether they come from the system's time zones, and are not to be set.
    pub are_alternates_fixed: bool,
    /// CLOCK_DESCRIPTION.
    pub description: Description,
    /// Those of each port.
    pub ports: Vec<PortSets>,
}

/// The data sets of a port.
#[derive(Clone, Debug, PartialEq)]
pub struct PortSets {
    /// `portDS`.
    pub data: PortDataSet,
    /// linuxptp's PORT_STATS_NP.
    pub stats: PortStats,
    /// linuxptp's PORT_SERVICE_STATS_NP.
    pub service: PortServiceStats,
    /// `masterOnly`.
    pub transmitter_only: bool,
    /// `neighborPropDelayThresh` and `asCapable`.
    pub np: PortDataSetNp,
    /// Of its link.
    pub link: CmldsInfo,
    /// Between stamps and wire.
    pub corrections: PortCorrections,
    /// What its Announce say of IEEE C37.238.
    pub power: PowerProfileSettings,
    /// Where it is.
    pub place: Place,
    /// Whom it asks by unicast, as they are on the wire.
    pub unicast_masters: Vec<u8>,
}

/// What a clock says of itself in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Maker, model and number, with semicolons between.
    pub product: String,
    /// Of hardware, firmware and software, with semicolons between.
    pub revision: String,
    /// Of whoever runs it.
    pub user: String,
}

impl Description {
    /// Whether a text can be `userDescription`: a `PTPText` of 128 octets at the most (8.2.1.3.4).
    ///
    /// # Errors
    /// The reason why not.
    pub fn check_user(text: &str) -> Result<(), &'static str> {
        match text.len() {
            0..=128 if !text.contains(char::is_control) => Ok(()),
            0..=128 => Err("a description has no control characters"),
            _ => Err("a description has 128 octets at the most"),
        }
    }

    /// Of this program.
    pub fn own() -> Self {
        Self {
            product: ";ptp-agent;".into(),
            revision: concat!(";;", env!("CARGO_PKG_VERSION")).into(),
            user: String::new(),
        }
    }
}

/// Where a port is, and what stamps there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interface's name.
    pub interface: String,
    /// Its MAC address; empty where it has none.
    pub physical_address: Vec<u8>,
    /// What carries the messages.
    pub protocol: NetworkProtocol,
    /// Its address there.
    pub protocol_address: Vec<u8>,
    /// The number of the hardware clock that is followed; `None` where it is none of hardware.
    pub phc_index: Option<i32>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            interface: String::new(),
            physical_address: Vec::new(),
            protocol: NetworkProtocol::UDP_IPV4,
            protocol_address: Vec::new(),
            phc_index: None,
        }
    }
}

/// Local times by their keys, and which of them are announced (16.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternates(pub [(bool, AlternateTimeOffset); Alternates::KEYS]);

impl Alternates {
    /// As many as there are.
    pub const KEYS: usize = 4;

    /// Those that are announced.
    pub fn announced(&self) -> Vec<AlternateTimeOffset> {
        self.0.iter().filter(|(is_on, _)| *is_on).map(|(_, each)| *each).collect()
    }

    /// Those that are announced already.
    pub fn of(announced: &[AlternateTimeOffset]) -> Self {
        let mut all = Self::default();
        for each in announced {
            if let Some(place) = all.0.get_mut(usize::from(each.key)) {
                *place = (true, *each);
            }
        }
        all
    }
}

impl Default for Alternates {
    fn default() -> Self {
        Self(std::array::from_fn(|key| {
            let none = AlternateTimeOffset {
                key: key as u8,
                current_offset_s: 0,
                jump_s: 0,
                next_jump_s: 0,
                name: DisplayName::new(""),
            };
            (false, none)
        }))
    }
}

impl PortSets {
    /// Of a port of which nothing else is known.
    pub fn new(data: PortDataSet, stats: PortStats) -> Self {
        let port_identity: PortIdentity = data.port_identity;
        Self {
            data,
            stats,
            service: PortServiceStats { port_identity, counts: [0; 10] },
            transmitter_only: false,
            np: PortDataSetNp {
                neighbor_prop_delay_threshold_ns: USUAL_THRESHOLD_NS,
                as_capable: 1,
            },
            link: CmldsInfo { as_capable: 1, ..CmldsInfo::default() },
            corrections: PortCorrections::default(),
            power: PowerProfileSettings::NONE,
            place: Place::default(),
            unicast_masters: Vec::new(),
        }
    }

    fn set(&mut self, setting: PortSetting) {
        match setting {
            // DISABLED; what it is once it is enabled the engine will say.
            PortSetting::Enabled(false) => self.data.port_state = 3,
            PortSetting::Enabled(true) => {}
            PortSetting::LogAnnounceInterval(log) => self.data.log_announce_interval = log,
            PortSetting::AnnounceReceiptTimeout(n) => self.data.announce_receipt_timeout = n,
            PortSetting::LogSyncInterval(log) => self.data.log_sync_interval = log,
            PortSetting::LogMinPdelayReqInterval(log) => {
                self.data.log_min_pdelay_req_interval = log;
            }
            PortSetting::NeighborThreshold(ns) => {
                self.np.neighbor_prop_delay_threshold_ns = ns;
            }
            PortSetting::Corrections(corrections) => self.corrections = corrections,
            PortSetting::Power(power) => self.power = power,
        }
    }
}

impl DataSets {
    /// As they are with a setting.
    pub fn set(&mut self, setting: Setting) {
        let is_grandmaster = self.parent.parent_port_identity.clock_identity
            == self.default.clock_identity
            || self.parent.grandmaster_identity == self.default.clock_identity;
        match setting {
            Setting::Priority1(priority) => {
                self.default.priority1 = priority;
                if is_grandmaster {
                    self.parent.grandmaster_priority1 = priority;
                }
            }
            Setting::Priority2(priority) => {
                self.default.priority2 = priority;
                if is_grandmaster {
                    self.parent.grandmaster_priority2 = priority;
                }
            }
            Setting::Grandmaster(settings) => {
                self.grandmaster = settings;
                self.default.clock_quality = settings.clock_quality;
                if is_grandmaster {
                    self.parent.grandmaster_clock_quality = settings.clock_quality;
                    self.time_properties = settings.time_properties;
                }
            }
            Setting::Uncertain(uncertain) => self.uncertain = uncertain,
            Setting::External(external) => self.external = external,
            Setting::Alternates(alternates) => self.alternates = alternates,
            Setting::Port(number, setting) => {
                for port in &mut self.ports {
                    if number == PortIdentity::ALL.port_number
                        || number == port.data.port_identity.port_number
                    {
                        port.set(setting);
                    }
                }
            }
        }
    }
}
