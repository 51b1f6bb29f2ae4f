"""Sends a packet along each path of a gateway with kipsecd, under each kind of policy, and tells which arrive that should
not, and which do not that should.

paths.py TAG BIN

The namespaces are TAG-left, TAG-mid and TAG-right, in a row; mid has kipsecd, and left has one that protects nothing unless
this program says so. All sockets belong to this one process: a socket stays in the namespace in which it was made.
"""
import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import time

TAG, BIN = sys.argv[1:3]
PORT = 7000
IPCOMP, OSPF = 108, 89
BOUND = "bound"  # UDP from a socket that is bound to an interface
V4 = {"left": "10.1.0.1", "mid": "10.1.0.2", "alias": "10.1.0.3", "right": "10.2.0.2", "loop": "127.0.0.1", "group": "224.0.0.251"}
V6 = {"left": "fd00:1::1", "mid": "fd00:1::2", "alias": "fd00:1::3", "right": "fd00:2::2", "loop": "::1", "group": "ff02::fb"}
FAR = "with a hop limit that a router has lowered"
DEVICE = {"left": "to-mid", "mid": "to-left", "right": "to-mid"}
libc = ctypes.CDLL(None, use_errno=True)


def enter(host):
    fd = os.open(f"/var/run/netns/{TAG}-{host}", os.O_RDONLY)
    if libc.setns(fd, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def command(host, *words, text=None):
    subprocess.run(["ip", "netns", "exec", f"{TAG}-{host}", *words], input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def setkey(host, text):
    command(host, f"{BIN}/setkey", "-c", text=text)


class Host:
    def __init__(self, name):
        enter(name)
        self.name, self.index = name, socket.if_nametoindex(DEVICE[name])
        with open("/proc/thread-self/net/if_inet6") as f:
            words = [line.split() for line in f]
        self.link = next(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(w[0])) for w in words if w[5] == DEVICE[name] and w[3] == "20")
        self.receive, self.raw = [], {}
        for family, wild in (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"):
            s = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                group = socket.inet_pton(family, V6["group"]) + struct.pack("@I", self.index)
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            else:
                group = socket.inet_aton(V4["group"]) + struct.pack("@4sI", b"\0\0\0\0", self.index)
                s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
                s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
                s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.bind((wild, PORT))
            self.receive.append(s)
            self.raw[family, PORT] = s
            bound = socket.socket(family, socket.SOCK_DGRAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, DEVICE[name].encode())
            self.raw[family, BOUND] = bound
            for proto in IPCOMP, OSPF, socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6:
                r = socket.socket(family, socket.SOCK_RAW, proto)
                if family == socket.AF_INET6:
                    r.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
                    r.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
                self.receive.append(r)
                self.raw[family, proto] = r
        for s in self.receive:
            s.setblocking(False)

    def send(self, family, kind, data, to, hops=None):
        scoped = to.startswith("fe80") or to.startswith("ff02")
        port = PORT if kind in (PORT, BOUND) else 0
        address = (to, port, 0, self.index if scoped else 0) if family == socket.AF_INET6 else (to, port)
        extra = [(socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("@i", hops))] if hops else []
        try:
            self.raw[family, kind].sendmsg([data], extra, 0, address)
        except OSError:
            pass  # a refusal is no arrival

    def arrivals(self):
        for s in self.receive:
            while True:
                try:
                    yield s.recv(70000)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # an ICMP error for something sent before


def icmp(kind, code, data):
    message = struct.pack("!BBHHH", kind, code, 0, 1, 1) + data
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return message[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + message[4:]


def paths(hosts):
    """Yields name, sender, receiver, family, kind of socket, packet made of the mark, destination, and what has to allow it."""
    plain = lambda mark: mark
    large = lambda mark: mark + bytes(3000)
    ipcomp = lambda mark: bytes([17, 0, 9, 9]) + mark
    for family, a in (socket.AF_INET, V4), (socket.AF_INET6, V6):
        six = family == socket.AF_INET6
        control = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
        echo = lambda mark, k=128 if six else 8: icmp(k, 0, mark)
        error = lambda mark, k=1 if six else 3: icmp(k, 1, mark)
        for name, me, peer, needs in ("sent", "mid", "left", "out"), ("received", "left", "mid", "in"), ("forwarded", "left", "right", "in out"):
            yield name, me, peer, family, PORT, plain, a[peer], needs
            yield name + " in fragments", me, peer, family, PORT, large, a[peer], needs
            yield name + ", raw", me, peer, family, OSPF, plain, a[peer], needs
            yield name + ", ICMP", me, peer, family, control, echo, a[peer], needs
            yield name + ", ICMP error", me, peer, family, control, error, a[peer], needs
            # Where kipsecd runs it keeps IPsec for the host from other sockets.
            if name == "sent":
                yield name + ", bound", me, peer, family, BOUND, plain, a[peer], needs
                yield name + ", bound, in fragments", me, peer, family, BOUND, large, a[peer], needs
                yield name + ", IPsec", me, "right", family, IPCOMP, ipcomp, a["right"], needs
            elif name == "forwarded":
                yield name + ", IPsec", me, peer, family, IPCOMP, ipcomp, a[peer], needs
        yield "own address", "mid", "mid", family, PORT, plain, a["alias"], "in out"
        yield "loopback", "mid", "mid", family, PORT, plain, a["loop"], "in out"
        for name, me, peer, needs in ("sent", "mid", "left", "out"), ("received", "left", "mid", "in"):
            yield name + ", multicast", me, peer, family, PORT, plain, a["group"], needs
            if not six:
                yield name + ", broadcast", me, peer, family, PORT, plain, "10.1.0.255", needs
                continue
            yield name + ", link scope", me, peer, family, PORT, plain, hosts[peer].link, needs
            listener = lambda mark: icmp(143, 0, mark)
            yield name + ", MLD", me, peer, family, control, listener, "ff02::1", needs
            for kind in 133, 134, 135, 136, 137:
                neighbour = lambda mark, k=kind: icmp(k, 0, mark)
                yield f"{name}, ND {kind}", me, peer, family, control, neighbour, "ff02::1", ""
                if kind > 134:
                    yield f"{name}, ND {kind} {FAR}", me, peer, family, control, neighbour, a[peer], needs


def settle(hosts):
    for h in hosts.values():
        for _ in h.arrivals():
            pass


def run(hosts, situation, allowed, only=lambda name, family: True):
    """Sends everything; wrong is what arrived against the rules or did not arrive."""
    settle(hosts)
    want, waiting = {}, set()
    for n, (name, me, peer, family, kind, make, to, needs) in enumerate(paths(hosts)):
        if not only(name, family):
            continue
        mark = b"<%04d:%s>" % (n, situation.encode())
        mark += bytes(len(mark) % 2)
        want[mark] = (name, peer, family, set(needs.split()) <= allowed)
        if want[mark][3]:
            waiting.add(mark)
        hosts[me].send(family, kind, make(mark), to, 64 if name.endswith(FAR) else None)
    got = set()
    end = time.time() + 3
    least = time.time() + 0.3
    while time.time() < least or waiting - got and time.time() < end:
        select.select([s for h in hosts.values() for s in h.receive], [], [], 0.05)
        for host in hosts.values():
            for data in host.arrivals():
                got.update(m for m, w in want.items() if w[1] == host.name and m in data)
    wrong = 0
    for mark, (name, _, family, expected) in want.items():
        if (mark in got) != expected:
            wrong += 1
            print(f"{situation}: {name}, {'IPv6' if family == socket.AF_INET6 else 'IPv4'}: {'dropped' if expected else 'passes'}")
    print(f"{situation}: {len(want)} paths, {len(got)} arrive, {wrong} wrong")
    return wrong


def everything(direction, policy, tunnel="10.1.0.1-10.1.0.2"):
    rule = {"use": f"ipsec esp/tunnel/{tunnel}/use", "require": f"ipsec esp/tunnel/{tunnel}/require"}.get(policy, policy)
    return "".join(f"spdadd {a} {a} any -P {direction} {rule};\n" for a in ("0.0.0.0/0", "::/0"))


def def_policy(host, value):
    for name in "net.inet.ipsec.def_policy", "net.inet6.ipsec6.def_policy":
        command(host, f"{BIN}/sysctl", "-q", "-w", f"{name}={value}")


def main():
    hosts = {name: Host(name) for name in ("left", "mid", "right")}
    both, wrong = {"in", "out"}, 0
    wrong += run(hosts, "no policy, def_policy 1", both)
    def_policy("mid", 0)
    wrong += run(hosts, "no policy, def_policy 0", set())
    setkey("mid", everything("in", "none") + everything("out", "none"))
    wrong += run(hosts, "none under def_policy 0", both)
    # A namespace that is closed but for one port, as it is for an IKE daemon.
    port = [f"spdadd {a} {a}{ports} udp -P {d} none;" for a in ("0.0.0.0/0", "::/0")
            for d in ("in", "out") for ports in (f"[{PORT}]",)]
    setkey("mid", "spdflush;" + "".join(port))
    names = [w + x for w in ("sent", "received", "forwarded") for x in ("", " in fragments")]
    wrong += run(hosts, "one port under def_policy 0", both, lambda n, f: n in names)
    wrong += run(hosts, "the rest under def_policy 0", set(), lambda n, f: "raw" in n or "ICMP" in n or FAR in n)
    def_policy("mid", 1)
    for direction in "in", "out":
        for policy, passes in ("discard", False), ("none", True), ("use", True), ("require", False):
            setkey("mid", "spdflush;" + everything(direction, policy))
            wrong += run(hosts, f"{direction} {policy}, no SA", both if passes else both - {direction})

    # The same with what left sends protected.
    key = "0x000102030405060708090a0b0c0d0e0f10111213"
    sa = f"add 10.1.0.1 10.1.0.2 esp 0x1001 -m tunnel -E aes-gcm-16 {key};"
    setkey("left", sa + "".join(
        f"spdadd {a} {b} any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;"
        for a, nets in (("10.1.0.1", ("10.1.0.2", "10.2.0.2")), ("fd00:1::1", ("fd00:1::2", "fd00:2::2"))) for b in nets))
    setkey("mid", "spdflush;" + sa)
    unicast = lambda name, family: name.split(",")[0].split(" ")[0] in ("received", "forwarded") and not any(
        w in name for w in ("cast", "scope", "ND", "MLD"))
    other = "10.1.0.9-10.1.0.2"
    for policy, tunnel, passes in ("discard", "", False), ("none", "", True), ("use", other, True), ("require", None, True), ("require", other, False):
        setkey("mid", "spdflush;" + everything("in", policy, tunnel or "10.1.0.1-10.1.0.2"))
        name = f"in {policy}, {'another SA' if tunnel else 'the SA'}"
        # What carries IPsec inside is opened again by mid, and that is no IPsec.
        wrong += run(hosts, name, both if passes else {"out"}, lambda n, f: unicast(n, f) and "IPsec" not in n)
    setkey("mid", "spdflush;")
    wrong += run(hosts, "no policy, protected", both, lambda n, f: unicast(n, f) and "IPsec" not in n)
    def_policy("mid", 0)
    wrong += run(hosts, "def_policy 0, protected", set(), lambda n, f: unicast(n, f) and "IPsec" not in n)

    # Fragments beside policies with ports: UDP to our port is free, everything else needs protection.
    def_policy("mid", 1)
    setkey("left", "flush; spdflush;")
    free = "".join(f"spdadd {a} {a}[{PORT}] udp -P in none;\n" for a in ("0.0.0.0/0", "::/0"))
    setkey("mid", "spdflush;" + free + everything("in", "require"))
    wrong += run(hosts, "a port is free", both, lambda n, f: n in ("received in fragments", "forwarded in fragments", "received", "forwarded"))
    setkey("mid", "spdflush;" + free.replace(str(PORT), "53") + everything("in", "require"))
    wrong += run(hosts, "another port is free", {"out"}, lambda n, f: n in ("received in fragments", "forwarded in fragments", "received"))
    sys.exit(1 if wrong else 0)


main()
