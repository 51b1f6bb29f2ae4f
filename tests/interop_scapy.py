"""ESP packets exchanged with scapy's own IPsec layer, whose ciphers are those of python3-cryptography.

usage: interop_scapy.py NAMESPACE SETKEY INTERFACE MAC

Runs on the host without a daemon. NAMESPACE is that of the host with one, MAC its Ethernet address behind INTERFACE.
For each algorithm that scapy has, in each mode and family, pings go out that scapy has protected; the daemon must deliver
them, and scapy must be able to open what comes back. The same packet once more, and one with a wrong ICV, must get no
answer. Prints a line for each algorithm; the exit status is 1 when one fails.
"""
import os, select, subprocess, sys, time, warnings

warnings.filterwarnings("ignore")
from scapy.config import conf

conf.ipv6_enabled = True
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import AUTH_ALGOS, CRYPT_ALGOS, ESP, SecurityAssociation
from scapy.layers.l2 import Ether

NAMESPACE, SETKEY, INTERFACE, MAC = sys.argv[1:]

# Scapy's names and ours. None: not in the manual's table, and so not ours.
ENC = {
    "NULL": "null", "AES-CBC": "aes-cbc", "AES-CTR": "aes-ctr", "AES-GCM": "aes-gcm-16", "AES-CCM": None,
    "CHACHA20-POLY1305": "chacha20-poly1305", "DES": "des-cbc", "3DES": "3des-cbc", "CAST": "cast128-cbc",
    "Blowfish": "blowfish-cbc",
}
AUTH = {
    "NULL": ("null", 0), "HMAC-SHA1-96": ("hmac-sha1", 20), "SHA2-256-128": ("hmac-sha2-256", 32),
    "SHA2-384-192": ("hmac-sha2-384", 48), "SHA2-512-256": ("hmac-sha2-512", 64), "HMAC-MD5-96": ("hmac-md5", 16),
    "AES-CMAC-96": ("aes-cmac", 16),
}
# Key lengths in bytes, without salt, where the manual has fewer than scapy or where a few stand for many.
LENGTHS = {"NULL": [0], "DES": [8], "3DES": [24], "CAST": range(5, 17), "Blowfish": [5, 16, 31, 56]}

# A kind is an SA's number, its mode, the inner and the outer ends. The first of a pair is ours, the second the daemon's.
V4, V6 = ("10.1.0.1", "10.1.0.2"), ("fd00:1::1", "fd00:1::2")
KINDS = [
    (1, "transport", V4, V4), (2, "transport", V6, V6),
    (3, "tunnel", ("10.3.0.1", "10.3.0.2"), V4), (4, "tunnel", ("fd00:4::1", "fd00:4::2"), V4),
    (5, "tunnel", ("10.5.0.1", "10.5.0.2"), V6), (6, "tunnel", ("fd00:6::1", "fd00:6::2"), V6),
]


def key(n, first):
    return bytes((first + i * 37) & 255 for i in range(n))


def header(ends):
    return (IPv6 if ":" in ends[0] else IP)(src=ends[0], dst=ends[1])


class Case:
    """One choice of algorithms, loaded for all kinds."""

    def __init__(self, enc, length, auth, esn=False):
        self.enc, self.auth, self.esn = enc, auth, esn
        self.aead = CRYPT_ALGOS[enc].is_aead
        self.enc_key = key(length + CRYPT_ALGOS[enc].salt_size if length else 0, 11)
        self.auth_key = key(AUTH[auth][1], 17)
        self.name = f"{enc} {len(self.enc_key) * 8} {auth}" + (" ESN" if esn else "")

    def words(self):
        out = "-r 4 " + ("-f esn " if self.esn else "") + "-E " + ENC[self.enc]
        if self.enc_key:
            out += " 0x" + self.enc_key.hex()
        if not self.aead and self.auth != "NULL":
            out += f" -A {AUTH[self.auth][0]} 0x{self.auth_key.hex()}"
        return out

    def load(self):
        script = "flush; spdflush;\n"
        for n, mode, inner, outer in KINDS:
            for src, dst, spi in ((outer[0], outer[1], 0x1000 + n), (outer[1], outer[0], 0x2000 + n)):
                script += f"add {src} {dst} esp {spi} -m {mode} -u {n} {self.words()};\n"
            for direction, a, b in (("in", 0, 1), ("out", 1, 0)):
                ends = f"{outer[a]}-{outer[b]}" if mode == "tunnel" else ""
                script += f"spdadd {inner[a]} {inner[b]} any -P {direction} ipsec esp/{mode}/{ends}/unique:{n};\n"
        done = subprocess.run(["ip", "netns", "exec", NAMESPACE, SETKEY, "-c"], input=script, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"setkey: {done.stdout}{done.stderr}")

    def sa(self, n, mode, ends, spi):
        return SecurityAssociation(
            ESP, spi=spi, crypt_algo=self.enc, crypt_key=self.enc_key or None,
            auth_algo=None if self.aead else self.auth, auth_key=self.auth_key,
            tunnel_header=header(ends) if mode == "tunnel" else None, esn_en=self.esn)

    def verified(self):
        return self.aead or self.auth != "NULL"


def echo(ends, ident, seq, data):
    if ":" in ends[0]:
        return header(ends) / ICMPv6EchoRequest(id=ident, seq=seq, data=data)
    return header(ends) / ICMP(type=8, id=ident, seq=seq) / data


def answer(packet, ends, seq, data):
    """Says whether packet is the whole answer to the ping."""
    wire = bytes(packet)
    again = header(ends).__class__(wire)
    reply = again.getlayer(ICMPv6EchoReply) or again.getlayer(ICMP)
    if (again.src, again.dst) != (ends[1], ends[0]) or reply is None or reply.seq != seq:
        return False
    v6 = isinstance(reply, ICMPv6EchoReply)
    body = reply.data if v6 else bytes(reply.payload)
    reply.delfieldval("cksum" if v6 else "chksum")  # scapy computes it anew
    return body == data and (v6 or reply.type == 0) and bytes(again) == wire


class Wire:
    def __init__(self):
        self.socket = conf.L2socket(iface=INTERFACE)

    def send(self, packet):
        self.socket.send(Ether(dst=MAC) / packet)

    def esp(self, spi, seconds):
        """The ESP packets with that SPI that come in, until time is up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.socket], [], [], left)[0]:
                return
            frame = self.socket.recv()
            if frame is not None and frame.src == MAC and ESP in frame and frame[ESP].spi == spi:
                yield frame.payload


def ping(wire, case, kind, out, back, seq, size, number=None, high=None):
    """One ping each: with a wrong ICV, right, and the right one once more. Raises if the answer is not exactly one."""
    n, mode, inner, outer = kind
    data = os.urandom(size)
    sealed = out.encrypt(echo(inner, n, seq, data), seq_num=number, esn=high)
    if case.verified():
        broken = sealed.copy()
        tail = broken[ESP].data
        broken[ESP].data = tail[:-1] + bytes([tail[-1] ^ 1])
        wire.send(broken)
    wire.send(sealed)
    if case.verified():
        wire.send(sealed)
    for packet in wire.esp(back.spi, 2):
        # Had one of the two others been answered, the next ping would find that answer instead of its own.
        if not answer(back.decrypt(packet), inner, seq, data):
            raise RuntimeError("the answer is not what was sent")
        return
    raise RuntimeError("no answer")


def run(wire, case):
    case.load()
    for kind in KINDS:
        n, mode, inner, outer = kind
        out, back = case.sa(n, mode, outer, 0x1000 + n), case.sa(n, mode, outer[::-1], 0x2000 + n)
        try:
            for seq, size in enumerate((0, 1, 13, 56, 1200)):
                ping(wire, case, kind, out, back, seq, size)
            if case.esn:
                for seq, (number, high) in enumerate(((0xFFFFFFFE, 0), (1, 1), (0xFFFFFFFF, 0), (2, 1)), 10):
                    ping(wire, case, kind, out, back, seq, 56, number, high)
        except Exception as e:
            raise RuntimeError(f"{mode} {inner[0]} in {outer[0]}: {e}") from e


def cases():
    for enc, algo in CRYPT_ALGOS.items():
        if enc not in ENC:
            sys.exit(f"scapy has {enc}, which this test does not know")
        if ENC[enc] is None:
            print(f"{enc}: left out, for the manual has no such algorithm", flush=True)
            continue
        lengths = LENGTHS.get(enc, [algo.key_size] if isinstance(algo.key_size, int) else algo.key_size)
        for length in lengths:
            if enc == "AES-CBC" and length not in (16, 24, 32) or enc == "AES-CTR" and length not in (16, 24, 32):
                continue  # cryptography knows 512 bits, for XTS
            yield Case(enc, length, "NULL" if algo.is_aead else "SHA2-256-128")
        if algo.is_aead:
            yield Case(enc, lengths[0], "NULL", esn=True)
    for auth in AUTH_ALGOS:
        if auth not in AUTH:
            sys.exit(f"scapy has {auth}, which this test does not know")
        yield Case("AES-CBC", 16, auth)
        if auth != "NULL":
            yield Case("NULL", 0, auth)


def refused(case):
    """The reason why scapy's own library cannot do a case, or nothing."""
    try:
        sa = case.sa(1, "transport", V4, 1)
        sa.encrypt(echo(V4, 1, 1, b"x" * 16))
    except Exception as e:
        return f"{type(e).__name__}: {e}"


bad, done = 0, 0
wire = Wire()
for case in cases():
    if reason := refused(case):
        print(f"{case.name}: skipped, for scapy's library refuses it: {reason}", flush=True)
        continue
    try:
        run(wire, case)
        print(f"{case.name}: ok", flush=True)
        done += 1
    except Exception as e:
        print(f"{case.name}: FAILED: {e}", flush=True)
        bad += 1
print(f"{done} right, {bad} wrong", flush=True)
sys.exit(bad > 0 or done < 20)
