//! How the host's own interface is set.

use super::Ipv4;
use crate::host::InterfaceSpec;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::{Ipv4Addr, Ipv6Addr};
use serde::{Deserialize, Serialize};

/// IPv6 addresses that can be set by hand; the others the stack makes itself.
pub const MOST_IPV6: usize = 4;

/// Addresses by hand or by DHCP. As it is kept: texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    dhcp: bool,
    ipv4: Option<String>,
    netmask: Option<String>,
    gateway: Option<String>,
    ipv6: Vec<String>,
}

/// A setting, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub ipv4: Ipv4,
    /// IPv6 by hand, with the bits of the networks.
    pub ipv6: Vec<(Ipv6Addr, u8)>,
}

/// Whether a network can have a host of this address.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

fn ipv6(text: &str) -> Result<(Ipv6Addr, u8), String> {
    let wrong = || {
        format!(
            "{} is no IPv6 address with the bits of its network, such as 2001:db8::5/64",
            text.escape_default()
        )
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let (address, prefix): (Ipv6Addr, u8) = (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || !(1..=128).contains(&prefix) {
        return Err(wrong());
    }
    Ok((address, prefix))
}

impl Setting {
    /// DHCP, and IPv6 as routers say.
    #[must_use]
    pub fn dhcp() -> Self {
        Self {
            dhcp: true,
            ..Self::default()
        }
    }

    /// What of a specification is set: with DHCP no IPv4 address. `ipv6` are those by hand.
    #[must_use]
    pub fn of(spec: &InterfaceSpec, ipv6: &[String]) -> Self {
        let by_hand = |text: &Option<String>| text.clone().filter(|_| !spec.dhcp);
        Self {
            dhcp: spec.dhcp,
            ipv4: by_hand(&spec.ipv4),
            netmask: by_hand(&spec.netmask),
            gateway: by_hand(&spec.gateway),
            ipv6: ipv6.to_vec(),
        }
    }

    /// Whether IPv4 comes by DHCP.
    #[must_use]
    pub fn is_dhcp(&self) -> bool {
        self.dhcp
    }

    /// IPv6 addresses by hand.
    #[must_use]
    pub fn ipv6(&self) -> &[String] {
        &self.ipv6
    }

    /// Understands and checks it.
    ///
    /// # Errors
    /// A sentence that says what cannot be.
    pub fn addresses(&self) -> Result<Addresses, String> {
        if self.ipv6.len() > MOST_IPV6 {
            return Err(format!("At most {MOST_IPV6} IPv6 addresses can be set"));
        }
        let ipv6 = self.ipv6.iter().map(|text| ipv6(text)).collect::<Result<_, _>>()?;
        Ok(Addresses {
            ipv4: if self.dhcp { Ipv4::Dhcp } else { self.static_ipv4()? },
            ipv6,
        })
    }

    fn static_ipv4(&self) -> Result<Ipv4, String> {
        let parse = |text: &Option<String>, what: &str| {
            let text = text.as_deref().ok_or_else(|| format!("Without DHCP the interface needs {what}"))?;
            text.parse::<Ipv4Addr>()
                .map_err(|_| format!("{} is no IPv4 address", text.escape_default()))
        };
        let address = parse(&self.ipv4, "an address")?;
        let mask = u32::from(parse(&self.netmask, "a network mask")?);
        let prefix = mask.leading_ones();
        if mask.count_ones() != prefix || !(1..=32).contains(&prefix) {
            return Err("The network mask is not ones and then zeros".to_string());
        }
        let inside = u32::from(address) & !mask;
        if !is_host(address) || (prefix < 31 && (inside == 0 || inside == !mask)) {
            return Err(format!("{address}/{prefix} is no address of a host"));
        }
        let gateway = match &self.gateway {
            None => None,
            some => Some(parse(some, "a router")?),
        };
        if gateway.is_some_and(|gateway| u32::from(gateway) & mask != u32::from(address) & mask || gateway == address) {
            return Err("The router is not in the network of the address".to_string());
        }
        Ok(Ipv4::Static {
            address,
            prefix: u8::try_from(prefix).unwrap_or(32),
            gateway,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn setting(ipv4: &str, netmask: &str, gateway: &str, ipv6: &[&str]) -> Setting {
        let text = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
        Setting {
            dhcp: false,
            ipv4: text(ipv4),
            netmask: text(netmask),
            gateway: text(gateway),
            ipv6: ipv6.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn settings_that_would_cut_the_host_off_are_refused() {
        let good = setting("192.0.2.9", "255.255.255.0", "192.0.2.1", &["2001:db8::5/64"])
            .addresses()
            .unwrap();
        assert_eq!(
            good.ipv4,
            Ipv4::Static {
                address: Ipv4Addr::new(192, 0, 2, 9),
                prefix: 24,
                gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
            }
        );
        for (ipv4, netmask, gateway, ipv6) in [
            ("", "255.255.255.0", "", ""),
            ("192.0.2.9", "", "", ""),
            ("192.0.2.9", "255.0.255.0", "", ""),
            ("192.0.2.9", "0.0.0.0", "", ""),
            ("192.0.2.0", "255.255.255.0", "", ""),
            ("192.0.2.255", "255.255.255.0", "", ""),
            ("127.0.0.1", "255.0.0.0", "", ""),
            ("224.0.0.5", "255.0.0.0", "", ""),
            ("192.0.2.9", "255.255.255.0", "198.51.100.1", ""),
            ("192.0.2.9", "255.255.255.0", "192.0.2.9", ""),
            ("192.0.2.9", "255.255.255.0", "", "2001:db8::5"),
            ("192.0.2.9", "255.255.255.0", "", "ff02::1/64"),
            ("192.0.2.9", "255.255.255.0", "", "2001:db8::5/129"),
        ] {
            let ipv6: &[&str] = if ipv6.is_empty() { &[] } else { &[ipv6] };
            let answer = setting(ipv4, netmask, gateway, ipv6).addresses();
            assert!(answer.is_err(), "{ipv4} {netmask} {gateway} {ipv6:?} gives {answer:?}");
        }
    }

    proptest! {
        #[test]
        fn any_texts(ipv4: String, netmask: String, gateway: String, ipv6: String) {
            let _ = setting(&ipv4, &netmask, &gateway, &[&ipv6]).addresses();
        }

        #[test]
        fn what_is_taken_is_an_address_of_a_host(address: u32, prefix in 0_u32..33, gateway: u32) {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            let text = |number: u32| Ipv4Addr::from(number).to_string();
            if let Ok(Addresses { ipv4: Ipv4::Static { address: taken, prefix: bits, gateway: router }, .. }) =
                setting(&text(address), &text(mask), &text(gateway), &[]).addresses()
            {
                prop_assert!(u32::from(bits) == prefix && is_host(taken));
                prop_assert!(router.is_none_or(|router| u32::from(router) & mask == address & mask));
            }
        }
    }
}
