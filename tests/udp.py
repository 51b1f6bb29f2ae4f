"""UDP datagrams of any size, answered with their digest.

udp.py serve ADDR            say that it is serving, and answer until killed
udp.py ADDR TRIES SIZE...    send datagrams of these sizes; exit status 1 if one gets no right answer in TRIES tries
"""
import hashlib
import os
import socket
import sys

PORT = 5000


def open_socket(addr):
    return socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, socket.SOCK_DGRAM)


def serve(addr):
    s = open_socket(addr)
    s.bind((addr, PORT))
    print("serving", flush=True)
    while True:
        data, peer = s.recvfrom(70000)
        s.sendto(hashlib.sha256(data).digest(), peer)


def exchange(addr, size, tries):
    data = os.urandom(size)
    s = open_socket(addr)
    s.settimeout(3 if tries == 1 else 1)
    for _ in range(tries):
        s.sendto(data, (addr, PORT))
        try:
            return s.recv(100) == hashlib.sha256(data).digest()
        except TimeoutError:
            pass
    return False


if sys.argv[1] == "serve":
    serve(sys.argv[2])
bad = [n for n in sys.argv[3:] if not exchange(sys.argv[1], int(n), int(sys.argv[2]))]
if bad:
    sys.exit("UDP to %s, bytes: %s" % (sys.argv[1], " ".join(bad)))
