"""Attacks a live daemon with ESP packets, one row of a table after the other, and looks at its counters and its log.

hostile.py INTERFACE MAC SYS LOG VERSION: send through INTERFACE to MAC, the host with the variables SYS and the log LOG.
Runs as the peer. The victim has SPI 0x3001 with integrity (null, hmac-sha1), 0x3002 and 0x3003 with neither, for
transport and tunnel mode, and windows of 32 packets.
"""
import glob
import hashlib
import hmac
import os
import stat
import struct
import sys
import time

from scapy.all import IP, TCP, UDP, Ether, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrRouting, PadN, Raw, conf

INTERFACE, MAC, SYS, LOG = sys.argv[1:5]
V6 = sys.argv[5] == "6"
KEY = b"twenty bytes of key!"
SEALED, OPEN, OPEN_TUNNEL = 0x3001, 0x3002, 0x3003
SRC, DST = ("fd00:1::1", "fd00:1::2") if V6 else ("10.1.0.1", "10.1.0.2")
NAME, IPIP, OTHER = ("IPv6", 41, 4) if V6 else ("IPv4", 4, 41)
STATS = os.path.join(SYS, "net/inet6/ipsec6" if V6 else "net/inet/ipsec", "stats")
wire = conf.L2socket(iface=INTERFACE)
failures = 0


def outer(payload, **fields):
    """An IP packet with protocol 50 around the payload."""
    if V6:
        return IPv6(src=SRC, dst=DST, nh=50, **fields) / Raw(payload)
    return IP(src=SRC, dst=DST, proto=50, **fields) / Raw(payload)


def inner(payload=b"x" * 20):
    ip = IPv6(src=SRC, dst=DST) if V6 else IP(src=SRC, dst=DST)
    return bytes(ip / UDP(sport=9, dport=9) / Raw(payload))


def esp(spi, seq, payload, next_header=17, pad=None, pad_length=None):
    """ESP without encryption, and with an ICV for the SA that has one."""
    if pad is None:
        pad = bytes(range(1, 1 + -(len(payload) + 2) % 4))
    body = struct.pack("!II", spi, seq) + payload + pad
    body += bytes((len(pad) if pad_length is None else pad_length, next_header))
    if spi == SEALED:
        body += hmac.new(KEY, body, hashlib.sha1).digest()[:12]
    return body


def udp(n=20):
    return bytes(UDP(sport=9, dport=10, chksum=0, len=8 + n) / Raw(b"y" * n)) if not V6 else b"\0\x09\0\x0a" + struct.pack("!HH", 8 + n, 1) + b"y" * n


def flip(b, at):
    b = bytearray(b)
    b[at] ^= 0x10
    return bytes(b)


def nested(layers):
    b = inner()
    for _ in range(layers):
        b = bytes(outer(esp(OPEN_TUNNEL, 1, b, IPIP)))
    return outer(esp(OPEN_TUNNEL, 1, b, IPIP))


def rows():
    """(what, packets, counter or None for what is accepted, how often it moves, what the log says)"""
    good = esp(SEALED, 100, udp())
    yield "good", [outer(good)], None, 0, None
    yield "the same again", [outer(good)] * 5, "in_espreplay", 5, "replay packet in %s ESP input" % NAME
    yield "left of the window", [outer(esp(SEALED, n, udp())) for n in (1, 67, 68)], "in_espreplay", 3, None
    yield "in the window", [outer(esp(SEALED, n, udp())) for n in (69, 99)], None, 0, None
    yield "sequence number 0", [outer(esp(SEALED, 0, udp()))], "in_espreplay", 1, None
    future = esp(SEALED, 200, udp())
    yield "every byte of it changed", [outer(flip(future, n)) for n in range(7, len(future))], "in_espauthfail", len(future) - 7, \
        "auth fail in %s ESP input" % NAME
    yield "forged far ahead", [outer(future[:4] + b"\x7f" + future[5:])], "in_espauthfail", 1, None
    yield "unknown SPI", [outer(flip(future, 3))], "in_nosa", 1, "%s ESP input: no key association found" % NAME
    yield "reserved SPIs", [outer(esp(n, 1, udp())) for n in (0, 1, 255)], "in_nosa", 3, None
    cuts = [outer(future[:n]) for n in range(len(future))]
    yield "cut off within the header", cuts[:8], "in_inval", 8, "%s ESP input: packet too short" % NAME
    yield "cut off askew", [c for n, c in enumerate(cuts) if n >= 8 and n % 4], "in_inval", sum(1 for n in range(8, len(future)) if n % 4), \
        "%s ESP input: packet alignment problem" % NAME
    yield "cut off before the ICV", [cuts[8], cuts[16], cuts[20]], "in_inval", 3, None
    yield "cut off within the text", [cuts[24], cuts[len(future) - 4]], "in_espauthfail", 2, None
    yield "overlong", [outer(future + b"\0" * 4), outer(future + b"\0" * 1200)], "in_espauthfail", 2, None
    yield "overlong askew", [outer(future + b"\0")], "in_inval", 1, None
    yield "padding of any content", [outer(esp(SEALED, 201, udp(), pad=b"\xff" * 10))], None, 0, None
    yield "pad lengths past the beginning", [outer(esp(SEALED, 202 + n, udp(), pad_length=255 - n)) for n in range(3)], "in_inval", 3, \
        "bad pad length in %s ESP input" % NAME
    yield "dummy packet", [outer(esp(SEALED, 210, udp(), 59))], None, 0, "%s ESP input: dummy packet" % NAME
    yield "next header says the other family", [outer(esp(OPEN_TUNNEL, 1, inner(), OTHER))], "in_inval", 1, "ipsec tunnel address mismatch"
    yield "inner packet cut off", [outer(esp(OPEN_TUNNEL, 1, inner()[:n], IPIP)) for n in (0, 1, 19, 39)], "in_inval", 4, None
    yield "tunnel to self, as deep as it may be", [nested(7)], None, 0, None
    yield "tunnel to self, deeper", [nested(8), nested(20)], "in_nomem", 2, "too many layers of IPsec"
    yield "transport in transport in transport", [outer(chain(20))], "in_nomem", 1, None
    if V6:
        yield "extension headers in front", [IPv6(src=SRC, dst=DST) / IPv6ExtHdrDestOpt(nh=50, options=PadN(optdata=b"\0" * 4)) / Raw(esp(SEALED, 220, udp()))], None, 0, None
    else:
        yield "header options around a tunnel", [outer(esp(OPEN_TUNNEL, 1, inner(), IPIP), options=[b"\1\1\1\1"])], "in_inval", 1, None


def chain(layers):
    b, proto = udp(), 17
    for _ in range(layers):
        b, proto = esp(OPEN, 1, b, proto), 50
    return b


def drop_counters():
    values = {}
    for path in glob.glob(os.path.join(STATS, "in_*")) + glob.glob(os.path.join(STATS, "out_*")):
        name = os.path.basename(path)
        if "hist" in name or "succ" in name:
            continue
        with open(path) as f:
            values[name] = int(f.read())
    return values


def complain(text):
    global failures
    failures += 1
    print("FAILED: " + text)


def moved(before):
    after = drop_counters()
    return {n: after[n] - before[n] for n in after if after[n] != before[n]}


def log_size():
    return os.path.getsize(LOG)


def log_since(at):
    with open(LOG) as f:
        f.seek(at)
        return f.read()


def mode_of(path):
    return os.stat(path).st_mode if os.path.exists(path) else 0


total = 0
for what, packets, name, times, says in rows():
    before, at = drop_counters(), log_size()
    for p in packets:
        wire.send(Ether(dst=MAC, type=0x86DD if V6 else 0x800) / p)
    total += len(packets)
    want = {name: times} if name else {}
    until = time.monotonic() + 3
    while want and moved(before) != want and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    if moved(before) != want:
        complain("%s: counters move by %s, want %s" % (what, moved(before), want))
    if says and not stat.S_ISSOCK(mode_of("/dev/log")):
        while says not in log_since(at) and time.monotonic() < until:
            time.sleep(0.01)
        if says not in log_since(at):
            complain("%s: the log does not say %s" % (what, says))
print("%s: %d packets" % (NAME, total))
sys.exit(failures > 0)
