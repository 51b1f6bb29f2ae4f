#!/usr/bin/python3
"""A peer that speaks AH with scapy's own code.

usage: ah_scapy.py INTERFACE LEFT RIGHT ALGORITHM KEY [echo|replay|forge|tos]

Sends an echo request from RIGHT to LEFT in AH, SPI 0x1002, and wants the reply in AH, SPI 0x1001, with an ICV that scapy finds
right. With replay the request comes twice, with forge its last byte is changed, with tos a router has changed its type of
service; then the exit status still says whether there was a good reply.
"""
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (AsyncSniffer, Ether, ICMP, ICMPv6EchoReply, ICMPv6EchoRequest, IP, IPv6, IPv6ExtHdrDestOpt,
                       IPv6ExtHdrHopByHop, HBHOptUnknown, Raw, raw, sendp)
from scapy.layers.ipsec import AH, SecurityAssociation

interface, left, right, algorithm, key = sys.argv[1:6]
what = sys.argv[6] if len(sys.argv) > 6 else "echo"
key = bytes.fromhex(key[2:])
out = SecurityAssociation(AH, spi=0x1002, seq_num=1, auth_algo=algorithm, auth_key=key)
back = SecurityAssociation(AH, spi=0x1001, auth_algo=algorithm, auth_key=key)
load = Raw(b"kipsec" * 20)
if ":" in left:
    skip, mutable = HBHOptUnknown(otype=0x1e, optdata=b"fixed!"), HBHOptUnknown(otype=0x3e, optdata=b"may change")
    echo = ICMPv6EchoRequest(id=7, seq=1) / load
    head = dict(src=right, dst=left, tc=0x28, fl=0x12345)
    requests = [IPv6(**head) / echo,
                IPv6(**head) / IPv6ExtHdrHopByHop(options=[skip, mutable]) / echo,
                IPv6(**head) / IPv6ExtHdrDestOpt(options=[mutable, skip]) / echo,
                IPv6(**head) / IPv6ExtHdrHopByHop(options=[mutable]) / IPv6ExtHdrDestOpt(options=[skip]) / echo]
else:
    requests = [IP(src=right, dst=left, tos=0x28, id=0x4321, flags="DF") / ICMP(id=7, seq=1) / load]
if what != "echo":
    requests = requests[:1]


def answer(packet):
    return packet.haslayer(AH) and packet[AH].spi == 0x1001


def ask(request):
    """Sends a request; returns the clear reply that its AH held."""
    sealed = out.encrypt(request.__class__(raw(request)))
    if what == "forge":
        sealed = sealed.__class__(raw(sealed)[:-1] + b"!")
    if what == "tos":
        sealed.tos = 0xb8
        del sealed.chksum
    frames = [Ether() / sealed] * (2 if what == "replay" else 1)
    sniffer = AsyncSniffer(iface=interface, lfilter=answer, count=1, timeout=2,
                           started_callback=lambda: sendp(frames, iface=interface, verbose=False))
    sniffer.start()
    sniffer.join()
    if not sniffer.results:
        return None
    reply = sniffer.results[0]
    reply = reply[IPv6] if IPv6 in reply else reply[IP]
    clear = back.decrypt(reply)  # raises what a wrong ICV deserves
    return clear.__class__(raw(clear))


for request in requests:
    clear = ask(request)
    if clear is None:
        sys.exit("no reply to " + request.summary())
    good = clear.haslayer(ICMPv6EchoReply) or clear.haslayer(ICMP) and clear[ICMP].type == 0
    if not good or bytes(load) not in raw(clear):
        sys.exit("a strange reply: " + clear.summary())
