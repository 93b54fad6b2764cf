//! Address prefixes as the command line, the configuration and the interfaces have them.

use crate::prelude::*;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// All addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of an address by its netmask.
    pub fn of(address: IpAddr, netmask: IpAddr) -> Option<Self> {
        let length = match netmask {
            IpAddr::V4(mask) => u32::from(mask).leading_ones(),
            IpAddr::V6(mask) => u128::from(mask).leading_ones(),
        };
        (address.is_ipv4() == netmask.is_ipv4()).then(|| Self::new(address, length as u8))
    }

    fn new(address: IpAddr, length: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Self { address, length }
    }

    /// Length and address where IPv4 is `::ffff:0:0/96`, as the kernel's table has them.
    pub fn mapped(self) -> (u32, [u8; 16]) {
        match self.address {
            IpAddr::V4(v4) => (96 + u32::from(self.length), v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => (self.length.into(), v6.octets()),
        }
    }

    /// Whether an address begins like this.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::new(address, self.length) == self
    }
}

impl FromStr for Prefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected an address and a length, as in 192.0.2.0/24, not {text:?}");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(most), str::parse).map_err(|_| expected())?;
        if length > most {
            return Err(expected());
        }
        Ok(Self::new(address, length))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl serde::Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_read_and_bits_behind_it_are_left_out() {
        for (text, shown) in [
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("10.1.1.1", "10.1.1.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x", "10.0.0.0/-1"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn ipv4_is_told_from_ipv6_and_mapped_for_the_kernel() {
        let net: Prefix = "192.0.2.0/24".parse().unwrap();
        assert!(net.contains("192.0.2.99".parse().unwrap()));
        assert!(
            !net.contains("192.0.3.1".parse().unwrap()) && !net.contains("::".parse().unwrap())
        );
        let (length, bytes) = net.mapped();
        assert_eq!((length, &bytes[10..]), (120, &[0xff, 0xff, 192, 0, 2, 0][..]));
        let mask = "255.255.255.0".parse().unwrap();
        assert_eq!(Prefix::of("192.0.2.5".parse().unwrap(), mask), Some(net));
    }
}
