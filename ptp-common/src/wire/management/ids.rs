//! What a management message asks for, and why that is not done: the numbers of clause 15 and of linuxptp.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl ManagementId {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// All that the standard or linuxptp names, in the order of their numbers, with their names.
            pub const NAMED: &'static [(Self, &'static str)] =
                &[$((Self::$name, stringify!($name)),)*];

            /// Whether it is one of these.
            pub const fn is_named(self) -> bool {
                matches!(self.0, $($value)|*)
            }
        }
    };
}

/// `actionField` (table 57).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(pub u8);

impl Action {
    /// Tell a data set.
    pub const GET: Self = Self(0);
    /// Change one.
    pub const SET: Self = Self(1);
    /// The answer to both.
    pub const RESPONSE: Self = Self(2);
    /// Do something.
    pub const COMMAND: Self = Self(3);
    /// The answer to that.
    pub const ACKNOWLEDGE: Self = Self(4);
}

/// `managementId` (table 59), as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagementId(pub u16);

ids! {
    /// NULL_PTP_MANAGEMENT.
    NULL = 0x0000,
    /// CLOCK_DESCRIPTION.
    CLOCK_DESCRIPTION = 0x0001,
    /// USER_DESCRIPTION.
    USER_DESCRIPTION = 0x0002,
    /// SAVE_IN_NON_VOLATILE_STORAGE.
    SAVE_IN_NON_VOLATILE_STORAGE = 0x0003,
    /// RESET_NON_VOLATILE_STORAGE.
    RESET_NON_VOLATILE_STORAGE = 0x0004,
    /// INITIALIZE.
    INITIALIZE = 0x0005,
    /// FAULT_LOG.
    FAULT_LOG = 0x0006,
    /// FAULT_LOG_RESET.
    FAULT_LOG_RESET = 0x0007,
    /// DEFAULT_DATA_SET.
    DEFAULT_DATA_SET = 0x2000,
    /// CURRENT_DATA_SET.
    CURRENT_DATA_SET = 0x2001,
    /// PARENT_DATA_SET.
    PARENT_DATA_SET = 0x2002,
    /// TIME_PROPERTIES_DATA_SET.
    TIME_PROPERTIES_DATA_SET = 0x2003,
    /// PORT_DATA_SET.
    PORT_DATA_SET = 0x2004,
    /// PRIORITY1.
    PRIORITY1 = 0x2005,
    /// PRIORITY2.
    PRIORITY2 = 0x2006,
    /// DOMAIN.
    DOMAIN = 0x2007,
    /// SLAVE_ONLY.
    SLAVE_ONLY = 0x2008,
    /// LOG_ANNOUNCE_INTERVAL.
    LOG_ANNOUNCE_INTERVAL = 0x2009,
    /// ANNOUNCE_RECEIPT_TIMEOUT.
    ANNOUNCE_RECEIPT_TIMEOUT = 0x200a,
    /// LOG_SYNC_INTERVAL.
    LOG_SYNC_INTERVAL = 0x200b,
    /// VERSION_NUMBER.
    VERSION_NUMBER = 0x200c,
    /// ENABLE_PORT.
    ENABLE_PORT = 0x200d,
    /// DISABLE_PORT.
    DISABLE_PORT = 0x200e,
    /// TIME.
    TIME = 0x200f,
    /// CLOCK_ACCURACY.
    CLOCK_ACCURACY = 0x2010,
    /// UTC_PROPERTIES.
    UTC_PROPERTIES = 0x2011,
    /// TRACEABILITY_PROPERTIES.
    TRACEABILITY_PROPERTIES = 0x2012,
    /// TIMESCALE_PROPERTIES.
    TIMESCALE_PROPERTIES = 0x2013,
    /// UNICAST_NEGOTIATION_ENABLE.
    UNICAST_NEGOTIATION_ENABLE = 0x2014,
    /// PATH_TRACE_LIST.
    PATH_TRACE_LIST = 0x2015,
    /// PATH_TRACE_ENABLE.
    PATH_TRACE_ENABLE = 0x2016,
    /// GRANDMASTER_CLUSTER_TABLE.
    GRANDMASTER_CLUSTER_TABLE = 0x2017,
    /// UNICAST_MASTER_TABLE.
    UNICAST_MASTER_TABLE = 0x2018,
    /// UNICAST_MASTER_MAX_TABLE_SIZE.
    UNICAST_MASTER_MAX_TABLE_SIZE = 0x2019,
    /// ACCEPTABLE_MASTER_TABLE.
    ACCEPTABLE_MASTER_TABLE = 0x201a,
    /// ACCEPTABLE_MASTER_TABLE_ENABLED.
    ACCEPTABLE_MASTER_TABLE_ENABLED = 0x201b,
    /// ACCEPTABLE_MASTER_MAX_TABLE_SIZE.
    ACCEPTABLE_MASTER_MAX_TABLE_SIZE = 0x201c,
    /// ALTERNATE_MASTER.
    ALTERNATE_MASTER = 0x201d,
    /// ALTERNATE_TIME_OFFSET_ENABLE.
    ALTERNATE_TIME_OFFSET_ENABLE = 0x201e,
    /// ALTERNATE_TIME_OFFSET_NAME.
    ALTERNATE_TIME_OFFSET_NAME = 0x201f,
    /// ALTERNATE_TIME_OFFSET_MAX_KEY.
    ALTERNATE_TIME_OFFSET_MAX_KEY = 0x2020,
    /// ALTERNATE_TIME_OFFSET_PROPERTIES.
    ALTERNATE_TIME_OFFSET_PROPERTIES = 0x2021,
    /// EXTERNAL_PORT_CONFIGURATION_ENABLED.
    EXTERNAL_PORT_CONFIGURATION_ENABLED = 0x3000,
    /// MASTER_ONLY.
    MASTER_ONLY = 0x3001,
    /// HOLDOVER_UPGRADE_ENABLE.
    HOLDOVER_UPGRADE_ENABLE = 0x3002,
    /// EXT_PORT_CONFIG_PORT_DATA_SET.
    EXT_PORT_CONFIG_PORT_DATA_SET = 0x3003,
    /// TRANSPARENT_CLOCK_DEFAULT_DATA_SET.
    TRANSPARENT_CLOCK_DEFAULT_DATA_SET = 0x4000,
    /// TRANSPARENT_CLOCK_PORT_DATA_SET.
    TRANSPARENT_CLOCK_PORT_DATA_SET = 0x4001,
    /// PRIMARY_DOMAIN.
    PRIMARY_DOMAIN = 0x4002,
    /// DELAY_MECHANISM.
    DELAY_MECHANISM = 0x6000,
    /// LOG_MIN_PDELAY_REQ_INTERVAL.
    LOG_MIN_PDELAY_REQ_INTERVAL = 0x6001,
    /// TIME_STATUS_NP of linuxptp, as all from 0xc000 on.
    TIME_STATUS_NP = 0xc000,
    /// GRANDMASTER_SETTINGS_NP.
    GRANDMASTER_SETTINGS_NP = 0xc001,
    /// PORT_DATA_SET_NP.
    PORT_DATA_SET_NP = 0xc002,
    /// SUBSCRIBE_EVENTS_NP.
    SUBSCRIBE_EVENTS_NP = 0xc003,
    /// PORT_PROPERTIES_NP.
    PORT_PROPERTIES_NP = 0xc004,
    /// PORT_STATS_NP.
    PORT_STATS_NP = 0xc005,
    /// SYNCHRONIZATION_UNCERTAIN_NP.
    SYNCHRONIZATION_UNCERTAIN_NP = 0xc006,
    /// PORT_SERVICE_STATS_NP.
    PORT_SERVICE_STATS_NP = 0xc007,
    /// UNICAST_MASTER_TABLE_NP.
    UNICAST_MASTER_TABLE_NP = 0xc008,
    /// PORT_HWCLOCK_NP.
    PORT_HWCLOCK_NP = 0xc009,
    /// POWER_PROFILE_SETTINGS_NP.
    POWER_PROFILE_SETTINGS_NP = 0xc00a,
    /// CMLDS_INFO_NP.
    CMLDS_INFO_NP = 0xc00b,
    /// PORT_CORRECTIONS_NP.
    PORT_CORRECTIONS_NP = 0xc00c,
    /// EXTERNAL_GRANDMASTER_PROPERTIES_NP.
    EXTERNAL_GRANDMASTER_PROPERTIES_NP = 0xc00d,
}

/// `managementErrorId` (table 109), as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagementErrorId(pub u16);

impl ManagementErrorId {
    /// RESPONSE_TOO_BIG.
    pub const RESPONSE_TOO_BIG: Self = Self(0x0001);
    /// NO_SUCH_ID.
    pub const NO_SUCH_ID: Self = Self(0x0002);
    /// WRONG_LENGTH.
    pub const WRONG_LENGTH: Self = Self(0x0003);
    /// WRONG_VALUE.
    pub const WRONG_VALUE: Self = Self(0x0004);
    /// NOT_SETABLE.
    pub const NOT_SETABLE: Self = Self(0x0005);
    /// NOT_SUPPORTED.
    pub const NOT_SUPPORTED: Self = Self(0x0006);
    /// GENERAL_ERROR.
    pub const GENERAL_ERROR: Self = Self(0xfffe);
}
