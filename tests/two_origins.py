"""Sends the first half of a UDP packet through kipsecd, and the second half of another past it: same addresses, same
identification. Where the two become one packet, somebody else's words count as protected.

two_origins.py DEVICE FROM TO PORT
"""
import socket
import sys
import time

from scapy.all import IP, UDP, Ether, IPv6, IPv6ExtHdrFragment, Raw, getmacbyip, getmacbyip6, sendp

device, src, dst, port = sys.argv[1:]
six = ":" in src
network = IPv6(src=src, dst=dst) if six else IP(src=src, dst=dst)
whole = bytes(network / UDP(sport=1111, dport=int(port)) / Raw(b"GOODGOODGOODGOOD" + b"GOOD" * 6))
data = whole[40 if six else 20:]
evil = data[:24] + b"EVIL" * 6


def piece(number, payload, offset, more):
    if six:
        return IPv6(src=src, dst=dst) / IPv6ExtHdrFragment(nh=17, id=number, offset=offset // 8, m=more) / Raw(payload)
    return IP(src=src, dst=dst, proto=17, id=number, frag=offset // 8, flags="MF" if more else 0) / Raw(payload)


mac = getmacbyip6(dst) if six else getmacbyip(dst)
family = socket.AF_INET6 if six else socket.AF_INET
through = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def past(p):
    sendp(Ether(dst=mac) / p, iface=device, verbose=0)


for number, order in (0x4242, "past first"), (0x4343, "through first"):
    # The checksum is that of the mixture, so that only kipsecd can be what stops it.
    mixture = bytes(network / UDP(sport=1111, dport=int(port)) / Raw(evil[8:]))[40 if six else 20:]
    first, second = piece(number, mixture[:24], 0, 1), piece(number, mixture[24:], 24, 0)
    if order == "past first":
        past(second)
    time.sleep(0.2)
    through.sendto(bytes(first), (dst, 0))
    time.sleep(0.2)
    if order != "past first":
        past(second)
for p in piece(0x4444, data[:24], 0, 1), piece(0x4444, data[24:], 24, 0):
    through.sendto(bytes(p), (dst, 0))
