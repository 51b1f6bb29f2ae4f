"""What programs ask of a kernel with IPsec. Each subcommand prints its result, errors by their names.

kernel_client.py socket [TYPE [PROTOCOL]]   open PF_KEY; TYPE may be raw, dgram, nonblock, cloexec, junk, joined with +
kernel_client.py peek N                     N times: a request, and a peek at the answer without waiting, as racoon does
kernel_client.py poll N                     N times: a request, and a poll of a millisecond, as iked does
kernel_client.py spd                        how many policies there are
kernel_client.py drop                       open PF_KEY, give the privileges up, and go on
kernel_client.py full                       open PF_KEY without a free descriptor
kernel_client.py options                    IP_IPSEC_POLICY, IPV6_IPSEC_POLICY, UDP_ENCAP, right and wrong
kernel_client.py send ADDRESS               a datagram from a socket that wants ESP, and one from a socket that does not
kernel_client.py orphan                     whether there are children to wait for
kernel_client.py plain                      calls that kipsec-run has nothing to do with
"""
import ctypes
import errno
import fcntl
import os
import resource
import select
import socket
import struct
import sys

PF_KEY, V2 = 15, 2
REGISTER, SPDDUMP, ESP = 7, 18, 3
IP_POLICY, IPV6_POLICY, UDP_ENCAP = 16, 34, 100
BYPASS, ENTRUST, DISCARD = 4, 3, 0
AGAIN = (0, errno.EEXIST)  # the answers to the first REGISTER of a socket, and to others


def said(what, f):
    """Run f and print its result, or the name of its errno."""
    try:
        result = f()
    except OSError as e:
        result = errno.errorcode.get(e.errno, e.errno)
    print(what, "ok" if result is None else result, flush=True)
    return result


def pfkey(kind=socket.SOCK_RAW, protocol=V2):
    return socket.socket(PF_KEY, kind, protocol)


def request(kind, seq=1):
    return struct.pack("=BBBBHHII", 2, kind, 0, ESP, 2, 0, seq, os.getpid())


def header(b):
    version, kind, err, satype, length, _, seq, pid = struct.unpack("=BBBBHHII", b[:16])
    return kind, err, length * 8, seq, pid


def open_socket(kind="raw", protocol=V2):
    names = {"raw": 3, "dgram": 2, "nonblock": socket.SOCK_NONBLOCK, "cloexec": socket.SOCK_CLOEXEC, "junk": 0x100000}
    number = sum(names[k] for k in kind.split("+"))
    # Python's own socket() always sets cloexec.
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.socket(PF_KEY, number, int(protocol))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "socket")
    flags = []
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
        flags.append("nonblock")
    if fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
        flags.append("cloexec")
    return " ".join(["fd", *flags])


def peek(n):
    s = pfkey(socket.SOCK_RAW | socket.SOCK_NONBLOCK)
    for seq in range(int(n)):
        s.send(request(REGISTER, seq))
        kind, err, length, got, pid = header(s.recv(16, socket.MSG_PEEK))
        if (kind, got, pid) != (REGISTER, seq, os.getpid()) or err not in AGAIN:
            return "answer %s" % ((kind, err, got, pid),)
        if len(s.recv(length)) != length:
            return "short"


def poll(n):
    s = pfkey()
    p = select.poll()
    p.register(s, select.POLLIN)
    for seq in range(int(n)):
        s.send(request(REGISTER, seq))
        if not p.poll(1):
            return "no answer to request %d" % seq
        kind, err, length, got, _ = header(s.recv(16, socket.MSG_PEEK))
        if (kind, got) != (REGISTER, seq) or err not in AGAIN or len(s.recv(length)) != length:
            return "answer %s of %d bytes to request %d" % ((kind, err, got), length, seq)


def spd():
    s = pfkey()
    s.send(struct.pack("=BBBBHHII", 2, SPDDUMP, 0, 0, 2, 0, 1, os.getpid()))
    n = 0
    while True:
        _, err, _, seq, _ = header(s.recv(8192))
        if err == errno.ENOENT:
            return 0
        n += 1
        if seq == 0:
            return n


def drop():
    s = pfkey()
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    said("the open one", lambda: s.send(request(REGISTER)) and None)
    said("its answer", lambda: header(s.recv(4096))[:2])
    said("a new one", pfkey)
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    said("bypass", lambda: u.setsockopt(0, IP_POLICY, policy(BYPASS, 2)))
    said("entrust", lambda: u.setsockopt(0, IP_POLICY, policy(ENTRUST, 2)))
    said("UDP_ENCAP", lambda: u.setsockopt(17, UDP_ENCAP, 2))


def full():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    pfkey()


def policy(kind, direction, exttype=18):
    return struct.pack("=HHHBBII", 2, exttype, kind, direction, 0, 0, 0)


def options():
    u4, u6 = (socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6))
    t4 = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    for name, s, level, opt in (("v4", u4, 0, IP_POLICY), ("v6", u6, 41, IPV6_POLICY), ("v4 on v6", u6, 0, IP_POLICY), ("tcp", t4, 0, IP_POLICY)):
        # iked's form: extension type 12
        said(name + " in bypass", lambda: s.setsockopt(level, opt, policy(BYPASS, 1, 12)))
        said(name + " out bypass", lambda: s.setsockopt(level, opt, policy(BYPASS, 2)))
        said(name + " out is", lambda: struct.unpack("=HHHB", getopt(s, level, opt, policy(0, 2))[:7]))
        said(name + " out entrust", lambda: s.setsockopt(level, opt, policy(ENTRUST, 2)))
        said(name + " out is", lambda: struct.unpack("=HHHB", getopt(s, level, opt, policy(0, 2))[:7]))
        said(name + " in is", lambda: struct.unpack("=HHHB", getopt(s, level, opt, policy(0, 1))[:7]))
    said("short", lambda: u4.setsockopt(0, IP_POLICY, policy(BYPASS, 2)[:15]))
    said("long", lambda: u4.setsockopt(0, IP_POLICY, bytes(5000)))
    said("discard", lambda: u4.setsockopt(0, IP_POLICY, policy(DISCARD, 2)))
    said("direction 3", lambda: u4.setsockopt(0, IP_POLICY, policy(BYPASS, 3)))
    said("v6 on v4", lambda: u4.setsockopt(41, IPV6_POLICY, policy(BYPASS, 2)))
    said("room for 15", lambda: getopt(u4, 0, IP_POLICY, policy(0, 2)[:15]))
    for kind in (2, 0, 1, 3):
        said("UDP_ENCAP %d" % kind, lambda: u4.setsockopt(17, UDP_ENCAP, kind))
        said("UDP_ENCAP is", lambda: u4.getsockopt(17, UDP_ENCAP))
    said("UDP_ENCAP of three bytes", lambda: u6.setsockopt(17, UDP_ENCAP, b"abc"))
    u6.setsockopt(17, UDP_ENCAP, 2)
    said("UDP_ENCAP, room for one", lambda: u6.getsockopt(17, UDP_ENCAP, 1))
    said("UDP_ENCAP of the other", lambda: u4.getsockopt(17, UDP_ENCAP))
    said("UDP_ENCAP of TCP", lambda: t4.setsockopt(17, UDP_ENCAP, 2))
    libc = ctypes.CDLL(None, use_errno=True)
    r, w = os.pipe()
    wild = ctypes.c_void_p(0x10)
    for name, fd, at in (("no socket", r, b"\2\0\0\0"), ("no descriptor", 999, b"\2\0\0\0"), ("wild pointer", u4.fileno(), wild)):
        said(name, lambda: raw(libc.setsockopt, fd, 17, UDP_ENCAP, at, 4))
    said("wild policy", lambda: raw(libc.setsockopt, u4.fileno(), 0, IP_POLICY, wild, 16))
    said("wild length", lambda: raw(libc.getsockopt, u4.fileno(), 17, UDP_ENCAP, ctypes.create_string_buffer(4), wild))


def send(address):
    wants = struct.pack("=HHHBBII", 4, 18, 2, 2, 0, 0, 0) + struct.pack("=HHBBHII", 16, 50, 1, 2, 0, 0, 0)
    family, level, opt = (socket.AF_INET6, 41, IPV6_POLICY) if ":" in address else (socket.AF_INET, 0, IP_POLICY)
    for port, value in ((1001, wants), (1002, None)):
        s = socket.socket(family, socket.SOCK_DGRAM)
        if value:
            s.setsockopt(level, opt, value)
        s.sendto(b"x", (address, port))


def raw(f, *args):
    ctypes.set_errno(0)
    if f(*args) != 0:
        raise OSError(ctypes.get_errno(), "call")


def getopt(s, level, opt, value, room=256):
    libc = ctypes.CDLL(None, use_errno=True)
    buf = ctypes.create_string_buffer(value, max(room, len(value)))
    n = ctypes.c_uint32(room if len(value) >= 16 else len(value))
    raw(libc.getsockopt, s.fileno(), level, opt, buf, ctypes.byref(n))
    return buf.raw[:n.value]


def orphan():
    os.wait()


def plain():
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    a, b = socket.socketpair()
    a.send(b"x")
    p = select.poll()
    p.register(b, select.POLLIN)
    p.poll(1000)
    b.recv(1)


command, args = sys.argv[1], sys.argv[2:]
commands = {"socket": open_socket, "peek": peek, "poll": poll, "spd": spd, "drop": drop, "full": full,
            "options": options, "send": send, "orphan": orphan, "plain": plain}
said(command, lambda: commands[command](*args))
