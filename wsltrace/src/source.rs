//! Which clients are wanted: addresses and networks, as `--source` names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address, or all addresses that share its first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Source {
    address: IpAddr,
    bits: u8,
}

impl Source {
    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                Ipv4Addr::to_bits(own) & mask == Ipv4Addr::to_bits(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                Ipv6Addr::to_bits(own) & mask == Ipv6Addr::to_bits(other) & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == whole { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let bad =
            || format!("`{}` is no address: name one such as 172.28.16.1, fd00::1, or a network 10.0.0.0/8", text.escape_debug());
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(whole), |bits| bits.parse().map_err(|_| bad()))?;
        if bits > whole {
            return Err(format!("the network {text} has more than {whole} bits"));
        }
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (source, inside, outside) in [
            ("172.28.16.1", "172.28.16.1", "172.28.16.2"),
            ("10.1.0.0/16", "10.1.255.3", "10.2.0.0"),
            ("10.1.2.3/8", "10.9.9.9", "11.0.0.0"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            let parsed: Source = source.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{source} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{source} {outside}");
            assert_eq!(parsed.to_string(), source);
        }
    }

    #[test]
    fn what_is_no_address_says_what_is_one() {
        for text in ["", "localhost", "10.0.0", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1", "/8"] {
            assert!(text.parse::<Source>().unwrap_err().contains("is no address"), "{text}");
        }
        assert!("10.0.0.0/33".parse::<Source>().unwrap_err().contains("more than 32 bits"));
        assert!("::/129".parse::<Source>().unwrap_err().contains("more than 128 bits"));
    }
}
