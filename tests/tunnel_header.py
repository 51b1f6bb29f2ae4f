"""Sends packets through a tunnel and looks at each header on the wire and behind it.

tunnel_header.py TAG SYSA SYSB: namespaces are TAG-siteA, TAG-mid and TAG-siteB, SYSA and SYSB the variables of the gateways

siteA ── gwA ── mid ── gwB ── siteB. mid has no addresses: this program carries the frames between its two interfaces and
changes the ECN field of ESP packets on the way when a case wants that.
"""
import ctypes
import json
import os
import select
import socket
import subprocess
import sys
import time

from scapy.all import ESP, IP, UDP, Ether, IPv6, Raw

TAG, SYSA, SYSB = sys.argv[1:4]
NOT_ECT, ECT1, ECT0, CE = range(4)
DSCP = 0x88
ADDRESSES = {4: ("10.11.0.1", "10.12.0.2"), 6: ("fd00:11::1", "fd00:12::2")}
failures = 0


def packet_socket(namespace, interface):
    """An AF_PACKET socket in another namespace. It does not see what it sends."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open("/run/netns/%s-%s" % (TAG, namespace), os.O_RDONLY)
    try:
        if libc.setns(there, 0):
            raise OSError(ctypes.get_errno(), "setns")
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        s.bind((interface, 0))
        return s
    finally:
        libc.setns(home, 0)
        os.close(there)
        os.close(home)


def mac(namespace, interface):
    out = subprocess.check_output(["ip", "-n", TAG + "-" + namespace, "-j", "link", "show", interface])
    return json.loads(out)[0]["address"]


site_a, site_b = packet_socket("siteA", "to-gwA"), packet_socket("siteB", "to-gwB")
mid_a, mid_b = packet_socket("mid", "to-gwA"), packet_socket("mid", "to-gwB")
mac_site, mac_gw = mac("siteA", "to-gwA"), mac("gwA", "to-siteA")


def variable(name, value):
    for sys_ in (SYSA, SYSB):
        with open(os.path.join(sys_, *name.split(".")), "w") as f:
            f.write(str(value))


def counter(name):
    with open(os.path.join(SYSB, *name.split("."))) as f:
        return int(f.read())


def traffic_class(p):
    return p.tos if p.version == 4 else p.tc


def mark(frame, ecn):
    """The frame with another ECN field in its IP header."""
    p = Ether(frame)
    ip = p.payload
    if ip.version == 4:
        ip.tos = ip.tos & ~3 | ecn
        del ip.chksum
    else:
        ip.tc = ip.tc & ~3 | ecn
    return bytes(p)


def send(inner, ecn=None, wait=5.0):
    """Send a packet from siteA; return what was on the wire and what came to siteB, or None."""
    site_a.send(bytes(Ether(src=mac_site, dst=mac_gw) / inner))
    outer, arrived = None, None
    until = time.monotonic() + wait
    while arrived is None and time.monotonic() < until:
        ready, _, _ = select.select([mid_a, mid_b, site_b], [], [], 0.05)
        for s in ready:
            frame = s.recv(65536)
            ip = Ether(frame).payload
            if s is site_b:
                if UDP in ip and ip[UDP].dport == inner[UDP].dport:
                    arrived = ip
                continue
            if s is mid_a and ESP in ip:
                outer = ip
                if ecn is not None:
                    frame = mark(frame, ecn)
            (mid_b if s is mid_a else mid_a).send(frame)
    return outer, arrived


port = 10000


def packet(version, tos=0, df=True, ttl=77, label=0):
    global port
    port += 1
    src, dst = ADDRESSES[version]
    if version == 4:
        ip = IP(src=src, dst=dst, tos=tos, ttl=ttl, id=4711, flags="DF" if df else 0)
    else:
        ip = IPv6(src=src, dst=dst, tc=tos, hlim=ttl, fl=label)
    return ip / UDP(sport=9, dport=port) / Raw(b"x" * 40)


def check(what, got, want):
    global failures
    if got != want:
        failures += 1
        print("FAILED: %s: got %s, want %s" % (what, got, want))


def ingress(knob, inner):
    return {-1: inner, 0: NOT_ECT, 1: ECT0 if inner == CE else inner}[knob]


def egress(knob, outer, inner):
    """The inner field behind the tunnel; None: the packet is dropped."""
    if knob != 1 or outer != CE or inner == CE:
        return inner
    return None if inner == NOT_ECT else CE


def ecn_table(inner, outer):
    tree = "net.inet.ipsec" if outer == 4 else "net.inet6.ipsec6"
    for knob in (-1, 0, 1):
        variable(tree + ".ecn", knob)
        for a in range(4):
            for on_the_way in (None, NOT_ECT, ECT1, ECT0, CE):
                what = "IPv%d in IPv%d, ecn %d, inner %d, set to %s on the way" % (inner, outer, knob, a, on_the_way)
                seen = ingress(knob, a)
                want = egress(knob, seen if on_the_way is None else on_the_way, a)
                drops = counter(tree + ".stats.in_inval")
                header, arrived = send(packet(inner, tos=DSCP | a), on_the_way, 5.0 if want is not None else 0.2)
                check(what + ": outer", header and traffic_class(header), DSCP | seen)
                if want is None:
                    check(what + ": arrived", arrived, None)
                    check(what + ": counted", counter(tree + ".stats.in_inval"), drops + 1)
                else:
                    check(what + ": inner", arrived and traffic_class(arrived), DSCP | want)
    variable(tree + ".ecn", 0)


def outer_fields(inner, outer):
    what = "IPv%d in IPv%d" % (inner, outer)
    identifications = []
    for dfbit in (0, 1, 2):
        variable("net.inet.ipsec.dfbit", dfbit)
        for df in (False, True):
            for ttl in (3, 77, 255):
                sent = packet(inner, df=df, ttl=ttl, label=0xABCDE)
                header, arrived = send(sent)
                if header is None or arrived is None:
                    check(what + ": arrived", None, "a packet")
                    continue
                check(what + ": addresses", (header.src, header.dst), GATEWAYS[outer])
                left = arrived.ttl if inner == 4 else arrived.hlim
                check(what + ": inner TTL, two gateways later", left, ttl - 2)
                check(what + ": payload", bytes(arrived[UDP]), bytes(type(sent)(bytes(sent))[UDP]))
                if inner == 4:
                    check(what + ": inner DF", "DF" in arrived.flags, df)
                    check(what + ": inner identification", arrived.id, 4711)
                else:
                    check(what + ": inner flow label", arrived.fl, 0xABCDE)
                if outer == 6:
                    check(what + ": outer hop limit", header.hlim, 64)
                    check(what + ": outer flow label", header.fl, 0xABCDE if inner == 6 else 0)
                    continue
                want = {0: False, 1: True, 2: df and inner == 4}[dfbit]
                check("%s, dfbit %d, inner DF %s: outer DF" % (what, dfbit, df), "DF" in header.flags, want)
                check(what + ": outer TTL", header.ttl, 64)
                check(what + ": outer header length", header.ihl, 5)
                identifications.append(header.id)
    check(what + ": identifications are all different", len(set(identifications)), len(identifications))
    check(what + ": identifications that are 0", identifications.count(0), 0)
    variable("net.inet.ipsec.dfbit", 0)


GATEWAYS = {4: ("10.1.0.1", "10.1.0.2"), 6: ("fd00:1::1", "fd00:1::2")}
INNER, OUTER = int(sys.argv[4]), int(sys.argv[5])
for _ in range(10):  # until the links and neighbours are there
    if send(packet(INNER), wait=0.5)[1] is not None:
        break
outer_fields(INNER, OUTER)
ecn_table(INNER, OUTER)
sys.exit(failures > 0)
