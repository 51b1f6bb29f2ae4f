package tun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// virtioHeader stands in front of each packet that passes the device (struct virtio_net_hdr, virtio 1.2 §5.1.6):
//
//	0       1       2               4               6               8               10
//	+-------+-------+---------------+---------------+---------------+---------------+
//	| flags |  GSO  | header length |   GSO size    |   csum start  |  csum offset  |
//	+-------+-------+---------------+---------------+---------------+---------------+
//
// in the byte order of the machine. With needsChecksum the checksum field, csumOffset bytes behind csumStart, holds only
// the sum of the pseudo-header. gsoSize is the payload of each segment but the last.
type virtioHeader struct {
	flags, gso uint8
	headerLen  uint16
	gsoSize    uint16
	csumStart  uint16
	csumOffset uint16
}

const (
	virtioHeaderLen = 10

	needsChecksum = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone = unix.VIRTIO_NET_HDR_GSO_NONE
	gsoTCP4 = unix.VIRTIO_NET_HDR_GSO_TCPV4
	gsoTCP6 = unix.VIRTIO_NET_HDR_GSO_TCPV6
	gsoUDP  = unix.VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN  = unix.VIRTIO_NET_HDR_GSO_ECN // a flag in addition: the first segment has CWR
)

func (h *virtioHeader) decode(b []byte) {
	_ = b[virtioHeaderLen-1]
	h.flags, h.gso = b[0], b[1]
	h.headerLen = binary.NativeEndian.Uint16(b[2:])
	h.gsoSize = binary.NativeEndian.Uint16(b[4:])
	h.csumStart = binary.NativeEndian.Uint16(b[6:])
	h.csumOffset = binary.NativeEndian.Uint16(b[8:])
}

func (h *virtioHeader) encode(b []byte) {
	_ = b[virtioHeaderLen-1]
	b[0], b[1] = h.flags, h.gso
	binary.NativeEndian.PutUint16(b[2:], h.headerLen)
	binary.NativeEndian.PutUint16(b[4:], h.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], h.csumStart)
	binary.NativeEndian.PutUint16(b[8:], h.csumOffset)
}
