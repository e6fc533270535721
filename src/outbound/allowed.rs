//! What an operator allows beyond the public internet.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// One entry that is neither an address, nor a network, nor a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address (10.0.0.7), nor a network (10.0.0.0/8), nor a host name (hooks.internal)")]
pub struct InvalidAllowance(pub String);

/// One thing that an operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Whatever lies in it, under any name.
    Network(IpNet),
    /// This name, wherever it leads. Lower case.
    Host(String),
}

impl FromStr for Allowed {
    type Err = InvalidAllowance;

    fn from_str(text: &str) -> Result<Self, InvalidAllowance> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(IpNet::from(address)));
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network));
        }
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        // A last label of digits alone would be a mistyped address.
        let ends_in_a_name =
            text.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| !byte.is_ascii_digit()));
        if text.split('.').all(is_label) && ends_in_a_name {
            return Ok(Self::Host(text.to_ascii_lowercase()));
        }
        Err(InvalidAllowance(text.to_owned()))
    }
}

impl Allowed {
    pub(crate) fn has_address(list: &[Self], address: IpAddr) -> bool {
        let address = address.to_canonical();
        list.iter().any(|entry| matches!(entry, Self::Network(network) if network.contains(&address)))
    }

    pub(crate) fn has_host(list: &[Self], host: &str) -> bool {
        let host = host.trim_end_matches('.');
        list.iter().any(|entry| matches!(entry, Self::Host(name) if name.eq_ignore_ascii_case(host)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_are_addresses_networks_or_names() {
        let list: Vec<Allowed> =
            ["127.0.0.1", "10.0.0.0/8", "::1", "Hooks.Internal"].iter().map(|text| text.parse().unwrap()).collect();
        for address in ["127.0.0.1", "10.200.0.1", "::1", "::ffff:10.0.0.1"] {
            assert!(Allowed::has_address(&list, address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.2", "11.0.0.1", "::2"] {
            assert!(!Allowed::has_address(&list, address.parse().unwrap()), "{address}");
        }
        assert!(Allowed::has_host(&list, "hooks.internal") && Allowed::has_host(&list, "HOOKS.internal."));
        assert!(!Allowed::has_host(&list, "evil-hooks.internal"));
        for wrong in ["", "10.0.0.300", "10.0.0.0/40", "http://x", "a b", "*.internal", "a..b"] {
            assert_eq!(wrong.parse::<Allowed>(), Err(InvalidAllowance(wrong.to_owned())), "{wrong}");
        }
    }
}
