#!/usr/bin/python3
"""Prints packets that scapy protects with AH, one a line: name, algorithm, clear packet, protected packet.

Regenerate with: /usr/bin/python3 golden.py >golden.txt
"""
import logging
logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (IP, IPv6, UDP, Raw, raw, IPOption, IPOption_LSRR, IPOption_RR, IPOption_Router_Alert, IPOption_Timestamp,
                       IPOption_NOP, IPOption_EOL, IPOption_Security, IPOption_Stream_Id, IPv6ExtHdrHopByHop,
                       IPv6ExtHdrDestOpt, IPv6ExtHdrRouting, RouterAlert, PadN, HBHOptUnknown)
from scapy.layers.ipsec import AH, SecurityAssociation

KEYS = {"HMAC-MD5-96": ("hmac-md5", 16), "HMAC-SHA1-96": ("hmac-sha1", 20), "SHA2-256-128": ("hmac-sha2-256", 32),
        "SHA2-384-192": ("hmac-sha2-384", 48), "SHA2-512-256": ("hmac-sha2-512", 64), "AES-CMAC-96": ("aes-cmac", 16)}
load = UDP(sport=1024, dport=53) / Raw(bytes(range(37)))
v4 = dict(src="10.0.0.1", dst="10.0.0.2", tos=0xb8, id=0x1234, flags="DF", ttl=33)
v6 = dict(src="fd00::1", dst="fd00::2", tc=0xb8, fl=0x12345, hlim=33)
unknown = HBHOptUnknown(otype=0x1e, optdata=b"fixed!")
mutable = HBHOptUnknown(otype=0x3e, optdata=b"may change")
# scapy exchanges the addresses of a routing header whether there are segments left or not, so there are.
ahead = IPv6ExtHdrRouting(addresses=["fd00::9", "fd00::a", "fd00::b"], segleft=3)
PACKETS = {
    "ip4": IP(**v4) / load,
    "ip4-tos-0": IP(**dict(v4, tos=0, flags=0, id=1)) / load,
    "ip4-router-alert": IP(options=[IPOption_Router_Alert()], **v4) / load,
    "ip4-mixed": IP(options=[IPOption_NOP(), IPOption_RR(routers=["1.2.3.4", "5.6.7.8"]), IPOption_Security(), IPOption_Stream_Id(security=7), IPOption_NOP()], **v4) / load,
    "ip6": IPv6(**v6) / load,
    "ip6-hop": IPv6(**v6) / IPv6ExtHdrHopByHop(options=[RouterAlert(), unknown, mutable]) / load,
    "ip6-route-ahead": IPv6(**v6) / ahead / load,
    "ip6-dest-route-ahead-dest": IPv6(**v6) / IPv6ExtHdrDestOpt(options=[mutable, unknown]) / ahead / IPv6ExtHdrDestOpt(options=[mutable]) / load,
}
for name, packet in PACKETS.items():
    for algorithm, (ours, size) in KEYS.items():
        sa = SecurityAssociation(AH, spi=0x2710, seq_num=1, auth_algo=algorithm, auth_key=bytes((i * 29 + 3) % 256 for i in range(size)))
        clear = packet.__class__(raw(packet))
        print(name, ours, raw(clear).hex(), raw(sa.encrypt(clear)).hex())
