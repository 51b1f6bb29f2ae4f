"""Sends packets that claim to come from their receiver itself: one that kipsecd puts into a tunnel, and past it one in clear
fragments and one compressed, which needs no key. Then one with its true source.

martians.py DEVICE FROM TO PORT
"""
import socket
import sys
import time
import zlib

from scapy.all import IP, UDP, Ether, IPv6, IPv6ExtHdrFragment, Raw, fragment, fragment6, getmacbyip, getmacbyip6, sendp

device, src, dst, port = sys.argv[1:]
six = ":" in src
network = IPv6 if six else IP
family = socket.AF_INET6 if six else socket.AF_INET
through = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
mac = getmacbyip6(dst) if six else getmacbyip(dst)


def datagram(a, text, *between):
    p = network(src=a, dst=dst)
    for b in between:
        p = p / b
    return network(bytes(p / UDP(sport=1111, dport=int(port)) / Raw(text)))


through.sendto(bytes(datagram(dst, b"MARTIAN in a tunnel")), (dst, 0))
for own in (dst, "::1" if six else "127.0.0.1"):
    text = b"MARTIAN in fragments" + bytes(2000)
    pieces = fragment6(datagram(own, text, IPv6ExtHdrFragment(id=own.count("0") + 99)), 1280) if six else fragment(datagram(own, text), 1000)
    for piece in pieces:
        sendp(Ether(dst=mac) / piece, iface=device, verbose=0)
    if six and own == dst:
        continue  # Linux takes IPv6 packets from own addresses where they come in clear, too
    plain = bytes(datagram(own, b"MARTIAN compressed" + bytes(200)))[40 if six else 20:]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    ipcomp = bytes([17, 0, 0, 2]) + deflate.compress(plain) + deflate.flush()
    outer = IPv6(src=own, dst=dst, nh=108) if six else IP(src=own, dst=dst, proto=108)
    sendp(Ether(dst=mac) / outer / Raw(ipcomp), iface=device, verbose=0)
time.sleep(0.3)
through.sendto(bytes(datagram(src, b"HONEST")), (dst, 0))
