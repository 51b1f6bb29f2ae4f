package frag

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// The tests in this file hold the package against the kernel: it must take our fragments, and we its. They run in a
// network namespace of their own, in a child of the test.

const childEnv = "KIPSEC_FRAG_TEST_CHILD"

const kernelMTU = 1500

func TestWithKernel(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		runInNamespace(t)
		return
	}
	prepareLoopback(t)
	for _, addr := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		t.Run("kernel reassembles "+addr.String(), func(t *testing.T) { kernelReassembles(t, addr) })
		t.Run("kernel fragments "+addr.String(), func(t *testing.T) { kernelFragments(t, addr) })
	}
}

// runInNamespace runs this test again in a new network namespace, and unless root also in a new user namespace.
func runInNamespace(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestWithKernel$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this machine gives no user and network namespace: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func prepareLoopback(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	lo.SetUint32(kernelMTU)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, lo); err != nil {
		t.Fatal(err)
	}
}

// listen returns a UDP socket on a port of the kernel's choice.
func listen(t *testing.T, addr netip.Addr) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return c, netip.AddrPortFrom(addr, port)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i)
	}
	return b
}

// udpPacket is a packet from 5000 to a port with right checksums.
func udpPacket(t *testing.T, to netip.AddrPort, payload []byte) []byte {
	version, head := 4, wire.IPv4HeaderLen
	if to.Addr().Is6() {
		version, head = 6, wire.IPv6HeaderLen
	}
	b := datagram(version, wire.UDPHeaderLen+len(payload))
	if version == 4 {
		wire.IPv4(b).SetSrc(to.Addr())
		wire.IPv4(b).SetDst(to.Addr())
		wire.IPv4(b).SetID(0) // Fragment has to choose one
		wire.IPv4(b).UpdateChecksum()
	} else {
		wire.IPv6(b).SetSrc(to.Addr())
		wire.IPv6(b).SetDst(to.Addr())
	}
	u := wire.UDP(b[head:])
	u.SetSrcPort(5000)
	u.SetDstPort(to.Port())
	u.SetLength(uint16(len(u)))
	copy(u.Payload(), payload)
	var p wire.Packet
	if err := wire.Parse(b, &p); err != nil || !wire.SetTransportChecksum(b, &p) {
		t.Fatal(err)
	}
	return b
}

func kernelReassembles(t *testing.T, addr netip.Addr) {
	c, to := listen(t, addr)
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if addr.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, size := range []int{100, 1473, 20000, 65507} {
		payload := pattern(size)
		if err := Fragment(buffer(udpPacket(t, to, payload)), kernelMTU, func(b *mbuf.Buf) {
			if err := unix.Sendto(fd, b.Bytes(), 0, sa); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			b.Free()
		}); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<16)
		n, from, err := c.ReadFromUDPAddrPort(got)
		if err != nil || !bytes.Equal(got[:n], payload) || from.Port() != 5000 {
			t.Fatalf("%d bytes sent, the kernel delivered %d from %v: %v", size, n, from, err)
		}
	}
}

func kernelFragments(t *testing.T, addr netip.Addr) {
	protocol := uint16(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(protocol<<8|protocol>>8))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	c, to := listen(t, addr)
	r := New(Limits{})
	noLeaks(t, r)
	for _, size := range []int{1473, 20000, 65507} {
		payload := pattern(size)
		if _, err := c.WriteToUDPAddrPort(payload, to); err != nil {
			t.Fatal(err)
		}
		whole := sniff(t, fd, r)
		var p wire.Packet
		if err := wire.Parse(whole, &p); err != nil || p.Fragment || !wire.TransportChecksumOK(whole, &p) {
			t.Fatalf("%d bytes: %v, %+v", size, err, p)
		}
		if !bytes.Equal(wire.UDP(whole[p.Header:]).Payload(), payload) {
			t.Errorf("%d bytes: the data differs", size)
		}
	}
}

// sniff feeds what comes over the loopback interface to r until a packet made of fragments is whole.
func sniff(t *testing.T, fd int, r *Reassembler) []byte {
	before := r.Counts().Reassembled
	for {
		b := mbuf.Get(mbuf.MaxSize)
		n, from, err := unix.Recvfrom(fd, b.Room(), 0)
		if err != nil {
			b.Free()
			t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			b.Free()
			continue
		}
		b.SetLen(n)
		whole := r.Add(b)
		if whole == nil {
			continue
		}
		packet := bytes.Clone(whole.Bytes())
		whole.Free()
		if r.Counts().Reassembled > before {
			return packet
		}
	}
}
