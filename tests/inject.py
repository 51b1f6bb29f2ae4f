"""Sends forged clear packets into TCP connections between sockets that ask for protection, and tells what the server reads.

inject.py TAG VERSION: the namespaces TAG-left and TAG-right have a kipsecd with keys and no policies. The forger sees all: it knows
ports, sequence numbers and time stamps. A connection is attacked before it is established, before it is accepted, and after.
"""
import ctypes
import os
import socket
import struct
import subprocess
import sys

from scapy.all import IP, TCP, Ether, IPv6, conf

TAG, V6 = sys.argv[1], sys.argv[2] == "6"
FAMILY, IPV = (socket.AF_INET6, IPv6) if V6 else (socket.AF_INET, IP)
LEFT, RIGHT = ("fd00:1::1", "fd00:1::2") if V6 else ("10.1.0.1", "10.1.0.2")
PROTECTED = "ipsec esp/transport//require"
libc = ctypes.CDLL(None, use_errno=True)
failures = 0


def enter(host):
    fd = os.open(f"/var/run/netns/{TAG}-{host}", os.O_RDONLY)
    if libc.setns(fd, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def stream(host):
    """A socket that sends and takes protected packets only."""
    enter(host)
    sock = socket.socket(FAMILY, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for direction in "in", "out":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.connect(f"/run/kipsec/{TAG}-{host}/sockopt")
            socket.send_fds(control, [bytes([3, 0, 0, 0]) + f"{direction} {PROTECTED}".encode()], [sock.fileno()])
            if control.recv(1000)[:4] != bytes(4):
                raise OSError("no policy")
    sock.settimeout(3)
    return sock


def nft(text):
    subprocess.run(["ip", "netns", "exec", f"{TAG}-left", "nft", text], check=True)


LINK = subprocess.run(["ip", "-n", f"{TAG}-right", "-o", "link", "show", "to-left"], check=True, text=True, capture_output=True).stdout
MAC = LINK.split("link/ether ")[1].split()[0]
enter("left")
wire = conf.L2socket(iface="to-right")
inner = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
inner.bind(("enc0", 0))
inner.settimeout(3)


def answer():
    """The SYN-ACK of the next connection, from where packets are in clear."""
    while True:
        packet = IPV(inner.recv(2000))
        if TCP in packet and packet[TCP].sport == 7000 and packet[TCP].flags == "SA":
            return packet[TCP]


def forge(syn_ack, flags, data=b"", behind=0):
    stamps = [o[1] for o in syn_ack.options if o[0] == "Timestamp"]
    options = [("NOP", None), ("NOP", None), ("Timestamp", (stamps[0][1] + 1, stamps[0][0]))] if stamps else []
    segment = TCP(sport=syn_ack.dport, dport=7000, flags=flags, seq=syn_ack.ack + behind, ack=syn_ack.seq + 1, options=options)
    wire.send(Ether(src=MAC, dst=MAC, type=0x86DD if V6 else 0x800) / IPV(src=LEFT, dst=RIGHT) / segment / data)


def attack(syn_ack, behind=0):
    forge(syn_ack, "PA", b"EVIL", behind)
    forge(syn_ack, "R", behind=behind)
    forge(syn_ack, "FA", behind=behind)


def expect(what, got, want):
    global failures
    if got != want:
        failures += 1
        print(f"{LEFT}: {what}: the server reads {got}, want {want}")


for state in "half open", "not accepted", "accepted":
    listener = stream("right")
    listener.bind((RIGHT, 7000))
    listener.listen(5)
    client = stream("left")
    if state == "half open":
        nft("table inet hold { chain o { type filter hook output priority -300; tcp dport 7000 tcp flags & (syn | ack) == ack drop; }; }")
    client.connect((RIGHT, 7000))
    syn_ack = answer()
    if state == "accepted":
        server, _ = listener.accept()
    attack(syn_ack)
    if state == "half open":
        listener.settimeout(0.3)
        try:
            listener.accept()
            expect(state, "a connection", None)
        except TimeoutError:
            pass
        nft("delete table inet hold")
        listener.settimeout(3)
    client.send(b"GOOD")
    if state != "accepted":
        server, _ = listener.accept()
    server.settimeout(3)
    expect(state, server.recv(100), b"GOOD")
    attack(syn_ack, 4)
    client.send(b"MORE")
    expect(state + ", later", server.recv(100), b"MORE")
    for sock in server, client, listener:
        sock.close()
sys.exit(failures > 0)
