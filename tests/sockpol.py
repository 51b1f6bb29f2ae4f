"""A program that gives its sockets policies of their own, by the control socket named by $SOCKOPT, or without it by setsockopt.

sockpol.py send  udp|tcp ADDRESS PORT POLICY...   say hello and wait for the answer; status 1 when none comes
sockpol.py much  udp|tcp ADDRESS PORT POLICY...   the same with a long message
sockpol.py serve udp|tcp ADDRESS PORT POLICY...   answer whoever says something
sockpol.py ping  ADDRESS POLICY...                an echo request from a raw socket; status 1 when no answer comes
sockpol.py try   FAMILY POLICY...                 print what becomes of each policy, and in the end what the socket has

NOBODY=early makes the program give its privileges up first, NOBODY=late when it has made its socket.
"""
import errno
import os
import socket
import struct
import sys
import threading

PATIENCE = float(os.environ.get("PATIENCE", "5"))
SET, GET = 3, 4


def drop(when):
    if os.environ.get("NOBODY") == when:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


LEVELS = {"use": 1, "require": 2}


def blob(text):
    """What ipsec_set_policy(3) makes of a policy with transport mode only."""
    direction, kind, *requests = text.split()
    body = b""
    for request in requests:
        proto, mode, _, level = request.split("/")
        body += struct.pack("=HHBBHII", 16, {"esp": 50, "ah": 51}[proto], {"transport": 1}[mode], LEVELS[level], 0, 0, 0)
    return struct.pack(
        "=HHHBBII", 2 + len(body) // 8, 18,
        {"ipsec": 2, "entrust": 3, "bypass": 4}[kind], {"in": 1, "out": 2}[direction], 0, 0, 0,
    ) + body


def plain(sock, op, text):
    level, option = (41, 34) if sock.family == socket.AF_INET6 else (0, 16)
    if op == SET:
        sock.setsockopt(level, option, blob(text))
        return ""
    import ctypes  # getsockopt of the module gives the kernel no value

    value = ctypes.create_string_buffer(blob(text + " entrust"), 256)
    size = ctypes.c_uint32(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), level, option, value, ctypes.byref(size)) != 0:
        raise OSError(ctypes.get_errno(), "getsockopt")
    for known in ["bypass", "entrust", "ipsec", "ipsec esp/transport//require"]:
        if value.raw[: size.value] == blob(text + " " + known):
            return text + " " + known
    return value.raw[: size.value].hex()


def ask(sock, op, text):
    if "SOCKOPT" not in os.environ:
        return plain(sock, op, text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.settimeout(5)
        control.connect(os.environ["SOCKOPT"])
        socket.send_fds(control, [bytes([op, 0, 0, 0]) + text.encode()], [sock.fileno()])
        answer = control.recv(1 << 16)
    error = struct.unpack("=i", answer[:4])[0]
    if error:
        raise OSError(error, answer[4:].decode())
    return answer[4:].decode()


def new(kind, address, policies):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    drop("late")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for policy in policies:
        ask(sock, SET, policy)
    sock.settimeout(PATIENCE)
    return sock


KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


def send(kind, address, port, *policies, message=b"hello"):
    with new(KINDS[kind], address, policies) as sock:
        sock.connect((address, int(port)))
        # The peer answers while it hears: who does not read until all is sent may wait for one that waits for him.
        threading.Thread(target=sock.sendall, args=(message,), daemon=True).start()
        answer = sock.recv(100000)
        while kind == "tcp" and len(answer) < len(message):
            answer += sock.recv(100000)
        return answer == message


def much(kind, address, port, *policies):
    global PATIENCE
    PATIENCE *= 6  # each packet of such a socket is asked about
    return send(kind, address, port, *policies, message=os.urandom(5000 if kind == "udp" else 3 << 20))


def serve(kind, address, port, *policies):
    sock = new(KINDS[kind], address, policies)
    sock.bind((address, int(port)))
    sock.settimeout(None)
    if kind == "tcp":
        sock.listen()
    print("serving", flush=True)
    while kind == "udp":
        data, peer = sock.recvfrom(100000)
        sock.sendto(data, peer)
    while True:
        peer, _ = sock.accept()
        print("accepted,", ask(peer, GET, "in"), flush=True)
        threading.Thread(target=echo, args=(peer,), daemon=True).start()


def echo(peer):
    with peer:
        while data := peer.recv(100000):
            peer.sendall(data)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ping(address, *policies):
    v6 = ":" in address
    request, answer = (128, 129) if v6 else (8, 0)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP) as sock:
        for policy in policies:
            ask(sock, SET, policy)
        sock.settimeout(PATIENCE)
        sock.connect((address, 0))
        ident = os.getpid() & 0xFFFF
        message = struct.pack("!BBHHH", request, 0, 0, ident, 1) + b"hello   "
        message = struct.pack("!BBHHH", request, 0, 0 if v6 else checksum(message), ident, 1) + b"hello   "
        sock.send(message)
        while True:
            got = sock.recv(1000)
            got = got if v6 else got[20:]
            if got[0] == answer and struct.unpack("!H", got[4:6])[0] == ident:
                return True


def attempt(family, *policies):
    sock = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_DGRAM)
    for policy in policies:
        try:
            ask(sock, SET, policy)
            print("ok", policy)
        except OSError as e:
            print(errno.errorcode[e.errno], policy)
    print(ask(sock, GET, "in") + ", " + ask(sock, GET, "out"))
    return True


drop("early")
try:
    ok = {"send": send, "much": much, "serve": serve, "ping": ping, "try": attempt}[sys.argv[1]](*sys.argv[2:])
except TimeoutError:
    ok = False
sys.exit(not ok)
