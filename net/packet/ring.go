package packet

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring of TPACKET_V2 is frames of one size, which the kernel fills and we give back in the same order
// (Documentation/networking/packet_mmap.rst):
//
//	frame:  struct tpacket2_hdr │ struct sockaddr_ll │ … │ IP packet
//
// TPACKET_V3 would hand over whole blocks of frames, at less cost, but a block that is not full only after a millisecond.
// Here each packet can be seen at once, and pacing (see Receiver) makes up for the cost: measured the same.
type ring struct {
	memory []byte
	size   int // of a frame
	block  int // frames in a block; what is left of it is not used
	frames int
	next   int // the frame that is filled next
}

const (
	// frameOverhead is what stands in front of the packet in a frame: TPACKET_ALIGN(TPACKET2_HDRLEN) + 16.
	frameOverhead = 80
	// frameFrom is where struct sockaddr_ll stands.
	frameFrom = int(unsafe.Sizeof(unix.Tpacket2Hdr{})) // a multiple of TPACKET_ALIGNMENT
	// blockSize is how much contiguous memory the kernel takes at a time.
	blockSize = 128 << 10
)

// openRing gives the socket a ring of at most memory bytes with frames for packets of length bytes.
func openRing(fd, memory, length int) (*ring, error) {
	const unit = 1 << 10
	size := max((frameOverhead+length+unit-1)/unit*unit, 2*unit)
	blocks := memory / blockSize
	if size > blockSize || blocks == 0 {
		return nil, fmt.Errorf("a ring of %d bytes holds no packets of %d", memory, length)
	}
	const version2 = 1 // TPACKET_V2
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, version2); err != nil {
		return nil, err
	}
	err := setRing(fd, &unix.TpacketReq{
		Block_size: blockSize, Block_nr: uint32(blocks), Frame_size: uint32(size), Frame_nr: uint32(blocks * (blockSize / size)),
	})
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &ring{memory: b, size: size, block: blockSize / size, frames: blocks * (blockSize / size)}, nil
}

func (r *ring) close() error { return unix.Munmap(r.memory) }

// largest is the length of the largest packet that a frame holds.
func (r *ring) largest() int { return r.size - frameOverhead }

// frame is what the kernel wrote about one packet, and the packet.
type frame struct {
	header *unix.Tpacket2Hdr
	from   *unix.RawSockaddrLinklayer
	packet []byte // all of it, or its beginning if it is longer than the frame
}

// at is where a frame stands in the memory.
func (r *ring) at(frame int) int { return frame/r.block*blockSize + frame%r.block*r.size }

func (r *ring) status(frame int) *uint32 {
	return (*uint32)(unsafe.Pointer(&r.memory[r.at(frame)]))
}

// ready says whether the frame that is n ahead of the next one is filled: then all before it are.
func (r *ring) ready(n int) bool {
	return atomic.LoadUint32(r.status((r.next+n)%r.frames))&unix.TP_STATUS_USER != 0
}

// peek returns the next frame, if it is filled. It is ours until release.
func (r *ring) peek() (f frame, ok bool) {
	if !r.ready(0) {
		return frame{}, false
	}
	b := r.memory[r.at(r.next):][:r.size]
	f.header = (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
	f.from = (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[frameFrom]))
	f.packet = b[f.header.Net:][:f.header.Snaplen]
	return f, true
}

// release gives the next frame back to the kernel.
func (r *ring) release() {
	atomic.StoreUint32(r.status(r.next), unix.TP_STATUS_KERNEL)
	if r.next++; r.next == r.frames {
		r.next = 0
	}
}
