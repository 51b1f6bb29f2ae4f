package packet

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/route"
)

// bulk is the part of a Sender that sends runs of datagrams as one packet.
type bulk struct {
	file     *os.File
	conn     syscall.RawConn
	sendFunc func(fd uintptr) bool // sendRun, made once: a method value allocates
	refused  bool                  // this kernel does not know how

	// Of the run in progress.
	run     superPacket
	way     route.Way
	name    unix.RawSockaddrLinklayer
	message unix.Msghdr
	parts   []unix.Iovec
	errno   syscall.Errno
}

func (s *Sender) openBulk() error {
	fd, err := s.config.openSending(unix.SOCK_RAW)
	if err != nil {
		return err
	}
	b := &s.bulk
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		unix.Close(fd)
		return err
	}
	b.file = os.NewFile(uintptr(fd), "packet socket")
	b.sendFunc = s.sendRun
	b.parts = make([]unix.Iovec, 0, 1+maxSegments)
	b.message.Name, b.message.Namelen = (*byte)(unsafe.Pointer(&b.name)), unix.SizeofSockaddrLinklayer
	b.conn, err = b.file.SyscallConn()
	return err
}

// gather puts a datagram into the run, or ends the run and begins another one.
func (s *Sender) gather(packet *mbuf.Buf, header int, way *route.Way) {
	b := &s.bulk
	if b.refused {
		s.push(packet, way)
		return
	}
	if b.run.n > 0 && (b.way != *way || !b.run.add(packet, header)) {
		s.release()
	}
	if b.run.n == 0 {
		b.way = *way
		b.run.add(packet, header)
	}
}

// release sends the run that was gathered, behind what is queued already.
func (s *Sender) release() {
	b := &s.bulk
	packets := b.run.bufs[:b.run.n]
	if len(packets) == 0 {
		return
	}
	if len(packets) > 1 && !b.refused {
		s.flush()
		address(&b.name, packets[0].Bytes(), &b.way)
		b.run.join(&b.way)
		b.parts = b.run.parts(b.parts[:0])
		b.message.Iov = &b.parts[0]
		b.message.SetIovlen(len(b.parts))
		b.errno = unix.EBADF
		_ = b.conn.Write(b.sendFunc) // closed: errno says so
		if b.errno == 0 {
			s.sent.Add(uint64(len(packets)))
			mbuf.FreeAll(packets)
			b.run.n = 0
			return
		}
		b.run.undo()
		b.refused = b.errno == unix.EINVAL
	}
	for _, p := range packets {
		s.push(p, &b.way)
	}
	b.run.n = 0
}

// sendRun is one sendmsg(2). The result is for RawConn: do not call again.
func (s *Sender) sendRun(fd uintptr) bool {
	for {
		_, _, s.bulk.errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&s.bulk.message)), unix.MSG_DONTWAIT)
		if s.bulk.errno != unix.EINTR && (s.bulk.errno != unix.EAGAIN || !s.wait(fd)) {
			return true
		}
	}
}
