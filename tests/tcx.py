#!/usr/bin/env python3
"""Programs at tcx ingress of an interface, by bpf(2) alone: the judge of what kipsecd puts there and leaves behind.

    tcx.py count DEVICE     print how many there are
    tcx.py stand DEVICE     put one there that lets everything pass, print a line, and keep it until killed
"""
import ctypes
import os
import platform
import signal
import socket
import struct
import sys

BPF_PROG_LOAD, BPF_PROG_QUERY, BPF_LINK_CREATE = 5, 16, 28
SCHED_CLS, TCX_INGRESS = 3, 46
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    """bpf(2) with attributes that are packed as its union wants them."""
    number = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[platform.machine()]
    result = libc.syscall(number, command, attributes, len(attributes))
    if result < 0:
        error = ctypes.get_errno()
        sys.exit(f"bpf({command}): {os.strerror(error)}")
    return result


def text(data):
    return ctypes.create_string_buffer(data, len(data))


def count(index):
    query = text(struct.pack("=IIIIQII", index, TCX_INGRESS, 0, 0, 0, 0, 0) + bytes(32))
    bpf(BPF_PROG_QUERY, query)
    return struct.unpack_from("=I", query, 24)[0]


def stand(index):
    # r0 = -1 (TCX_NEXT); exit
    code = text(struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0))
    name = text(b"none\0")
    load = struct.pack("=IIQQIIQII", SCHED_CLS, 2, ctypes.addressof(code), ctypes.addressof(name), 0, 0, 0, 0, 0)
    load += b"another\0".ljust(16, b"\0") + struct.pack("=II", 0, TCX_INGRESS)
    program = bpf(BPF_PROG_LOAD, text(load))
    return bpf(BPF_LINK_CREATE, text(struct.pack("=IIII", program, index, TCX_INGRESS, 0) + bytes(16)))


def main():
    index = socket.if_nametoindex(sys.argv[2])
    if sys.argv[1] == "count":
        print(count(index))
        return
    link = stand(index)
    print("stands", link, flush=True)
    signal.pause()


main()
