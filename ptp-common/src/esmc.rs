//! The messages by which synchronous Ethernet tells how good the frequency of a link is: ESMC of ITU-T G.8264 (clause
//! 11.3), an organization specific slow protocol (IEEE 802.3 annex 57B) with a QL TLV and, of equipment that is newer
//! than 2017, an extended one. Nothing here is PTP; both are frames that one port sends to the next.

use crate::wire::ClockIdentity;

/// EtherType of slow protocols.
pub const ETHERTYPE_SLOW: u16 = 0x8809;
/// Where they go: a group that no bridge forwards.
pub const SLOW_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x02];
/// Slow protocol subtype of organizations' own.
pub const SUBTYPE: u8 = 0x0a;
/// How many frames of a slow protocol a port may send in a second (IEEE 802.3 57A.3).
pub const MOST_PER_SECOND: u32 = 10;

/// `organizationId` of ITU-T and its subtype of ESMC.
const ORGANIZATION: [u8; 5] = [0x00, 0x19, 0xa7, 0x00, 0x01];
const VERSION: u8 = 1;
const EVENT: u8 = 0x08;
/// Before the first TLV.
const HEAD: usize = 10;
const QL: (u8, usize) = (1, 4);
const EXTENDED_QL: (u8, usize) = (2, 20);

/// Why bytes are no ESMC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EsmcError {
    /// Cut off.
    #[error("truncated: {have} bytes, needs {need}")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there would have to be.
        need: usize,
    },
    /// Another slow protocol, or another organization's.
    #[error("another slow protocol")]
    Other,
    /// A version that is not known.
    #[error("version {0} of ESMC")]
    Version(u8),
    /// The first TLV is no QL TLV of four octets (11.3.1.1), or another TLV has no length that can be.
    #[error("malformed TLV at byte {0}")]
    Tlv(usize),
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esmc {
    /// It tells of a change, and was sent at once.
    pub is_event: bool,
    /// SSM code, four bits.
    pub ssm: u8,
    /// Of newer equipment.
    pub extended: Option<ExtendedQuality>,
}

/// What the extended QL TLV says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedQuality {
    /// Enhanced SSM code; 0xff where the SSM code says it all.
    pub enhanced_ssm: u8,
    /// Of the clock that has originated it.
    pub clock_identity: ClockIdentity,
    /// There are clocks on the way that do not know this TLV.
    pub is_mixed: bool,
    /// They are not counted either.
    pub is_partial: bool,
    /// Enhanced clocks (eEEC) passed since the nearest SSU or primary reference.
    pub cascaded_eeecs: u8,
    /// Clocks (EEC) passed since then.
    pub cascaded_eecs: u8,
}

impl Esmc {
    /// Length of a message without extended TLV and padding, bytes.
    pub const LENGTH: usize = HEAD + QL.1;
    /// The same with it.
    pub const EXTENDED_LENGTH: usize = Self::LENGTH + EXTENDED_QL.1;

    /// Reads what follows the Ethernet header. Padding, reserved bits and TLVs of other types do not matter.
    ///
    /// # Errors
    /// [`EsmcError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EsmcError> {
        let have = bytes.len();
        let head =
            bytes.first_chunk::<HEAD>().ok_or(EsmcError::Truncated { have, need: Self::LENGTH })?;
        if head[0] != SUBTYPE || head[1..6] != ORGANIZATION {
            return Err(EsmcError::Other);
        }
        let version = head[6] >> 4;
        if version != VERSION {
            return Err(EsmcError::Version(version));
        }
        let is_event = head[6] & EVENT != 0;
        let ql = bytes
            .get(HEAD..Self::LENGTH)
            .ok_or(EsmcError::Truncated { have, need: Self::LENGTH })?;
        if (ql[0], length(ql)) != QL {
            return Err(EsmcError::Tlv(HEAD));
        }
        let ssm = ql[3] & 0x0f;
        let mut extended = None;
        let mut at = Self::LENGTH;
        // Type 0 is padding, as in every slow protocol.
        while let Some(tlv) = bytes.get(at..).filter(|rest| rest.len() >= 3 && rest[0] != 0) {
            let long = length(tlv);
            if long < 3 || long > tlv.len() || (tlv[0] == EXTENDED_QL.0 && long != EXTENDED_QL.1) {
                return Err(EsmcError::Tlv(at));
            }
            if tlv[0] == EXTENDED_QL.0 && extended.is_none() {
                let mut identity = [0; 8];
                identity.copy_from_slice(&tlv[4..12]);
                extended = Some(ExtendedQuality {
                    enhanced_ssm: tlv[3],
                    clock_identity: ClockIdentity(identity),
                    is_mixed: tlv[12] & 1 != 0,
                    is_partial: tlv[12] & 2 != 0,
                    cascaded_eeecs: tlv[13],
                    cascaded_eecs: tlv[14],
                });
            }
            at += long;
        }
        Ok(Self { is_event, ssm, extended })
    }

    /// Writes what follows the Ethernet header, without padding. Returns its length.
    pub fn emit(&self, bytes: &mut [u8; Self::EXTENDED_LENGTH]) -> usize {
        *bytes = [0; Self::EXTENDED_LENGTH];
        bytes[0] = SUBTYPE;
        bytes[1..6].copy_from_slice(&ORGANIZATION);
        bytes[6] = VERSION << 4 | if self.is_event { EVENT } else { 0 };
        bytes[HEAD] = QL.0;
        bytes[HEAD + 2] = QL.1 as u8;
        bytes[HEAD + 3] = self.ssm & 0x0f;
        let Some(extended) = &self.extended else { return Self::LENGTH };
        let tlv = &mut bytes[Self::LENGTH..];
        tlv[0] = EXTENDED_QL.0;
        tlv[2] = EXTENDED_QL.1 as u8;
        tlv[3] = extended.enhanced_ssm;
        tlv[4..12].copy_from_slice(&extended.clock_identity.0);
        tlv[12] = u8::from(extended.is_mixed) | u8::from(extended.is_partial) << 1;
        tlv[13] = extended.cascaded_eeecs;
        tlv[14] = extended.cascaded_eecs;
        Self::EXTENDED_LENGTH
    }

    /// What it says.
    pub fn quality(&self) -> QualityLevel {
        let enhanced = self.extended.map_or(0xff, |extended| extended.enhanced_ssm);
        QualityLevel::of(self.ssm, enhanced)
    }
}

/// Of a TLV, with its head.
fn length(tlv: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([tlv[1], tlv[2]]))
}

macro_rules! levels {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal $rank:literal;)*) => {
        /// How good a frequency is (ITU-T G.781). The codes of networks of option I (Europe and most others) and of
        /// option II (America) do not clash but for one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum QualityLevel { $($(#[doc = $doc])* $variant,)* }

        impl QualityLevel {
            /// All of them, the best first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name as G.781 has it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its place in the order of both options: 0 is the best; what cannot be told apart is equal.
            pub const fn rank(self) -> u8 {
                match self { $(Self::$variant => $rank,)* }
            }
        }
    };
}

levels! {
    /// Enhanced primary reference time clock.
    Eprtc = "QL-ePRTC" 0;
    /// Primary reference time clock.
    Prtc = "QL-PRTC" 1;
    /// Enhanced primary reference clock (option I).
    Eprc = "QL-ePRC" 2;
    /// Primary reference clock (option I).
    Prc = "QL-PRC" 3;
    /// Primary reference source (option II).
    Prs = "QL-PRS" 3;
    /// Synchronized, traceability unknown (option II).
    Stu = "QL-STU" 4;
    /// Stratum 2 (option II).
    St2 = "QL-ST2" 5;
    /// Type I or V supply unit (option I), or transit node clock (option II): one code for both.
    SsuA = "QL-SSU-A/TNC" 6;
    /// Type VI supply unit (option I).
    SsuB = "QL-SSU-B" 7;
    /// Stratum 3E (option II).
    St3e = "QL-ST3E" 7;
    /// Enhanced equipment clock.
    Eeec = "QL-eEEC" 8;
    /// Equipment clock (option I).
    Eec1 = "QL-EEC1" 9;
    /// Equipment clock, stratum 3 (option II).
    Eec2 = "QL-EEC2" 9;
    /// Self-timed clock (option II).
    Smc = "QL-SMC" 10;
    /// What the network's provider says (option II).
    Prov = "QL-PROV" 11;
    /// A code that neither option has.
    Invalid = "QL-INV" 14;
    /// Not to be used, for instance because it came from here.
    DoNotUse = "QL-DNU" 15;
}

impl QualityLevel {
    /// Of the SSM code and the enhanced one, which is 0xff where there is none (G.8264 tables 11-7 and 11-8).
    pub const fn of(ssm: u8, enhanced: u8) -> Self {
        match (ssm & 0x0f, enhanced) {
            (0x1 | 0x2, 0x20) => Self::Prtc,
            (0x1 | 0x2, 0x21) => Self::Eprtc,
            (0xa | 0xb, 0x22) => Self::Eeec,
            (0x2, 0x23) => Self::Eprc,
            (0x0, _) => Self::Stu,
            (0x1, _) => Self::Prs,
            (0x2, _) => Self::Prc,
            (0x4, _) => Self::SsuA,
            (0x7, _) => Self::St2,
            (0x8, _) => Self::SsuB,
            (0xa, _) => Self::Eec2,
            (0xb, _) => Self::Eec1,
            (0xc, _) => Self::Smc,
            (0xd, _) => Self::St3e,
            (0xe, _) => Self::Prov,
            (0xf, _) => Self::DoNotUse,
            _ => Self::Invalid,
        }
    }
}
