"""Which addresses of the network a server may be asked to fetch from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: its last 32 bits are the IPv4 address that is reached."""
GLOBAL_UNICAST = IPv6Network("2000::/3")
"""RFC 4291: all IPv6 addresses that the internet routes."""
TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))
"""6to4 (RFC 3056) and Teredo (RFC 4380) carry an IPv4 address inside, and nobody serves videos there."""
PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")
METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"))
)
"""Where clouds hand out the credentials of a machine: AWS, Google and others (v4, v6), Azure, Alibaba, Oracle."""


def is_allowed(address: str, *, private: bool) -> bool:
    """Whether a request may go to an IP address. private: also to private, loopback and link-local ones; never to multicast,
    unspecified and metadata addresses. Raises ValueError for what is no address."""
    found = _reached(ip_address(address))
    if found in METADATA or found.is_multicast or found.is_unspecified:
        return False
    return private or _is_public(found)


def _reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for, without its zone."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or IPv6Address(int(address))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and address not in PROTOCOL_ASSIGNMENTS
    return address.is_global and address in GLOBAL_UNICAST and not any(address in tunnel for tunnel in TUNNELS)
