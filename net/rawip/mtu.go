package rawip

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

const (
	// routeLife is how long an answer of the kernel is used again: as long as a changed path MTU may go unnoticed.
	routeLife = time.Second
	// maxRoutes is how many answers are kept.
	maxRoutes = 4096
)

// MTU returns the size in bytes of the largest IP packet that the way to an address carries, as far as the kernel knows:
// the MTU of the route, the path MTU learnt from ICMP, or the interface's MTU. The answer may be a second old. It is
// wire.MaxPacket at most, also where there is no route: sending tells why. Several goroutines may call it.
func (s *Sender) MTU(dst netip.Addr) int {
	scope := uint32(0)
	if dst.Is6() && isLinkLocal(dst) {
		if scope = s.scope(dst); scope == 0 {
			return wire.MinMTU6 // which way it goes is not known before it goes
		}
	}
	return s.routes.mtu(dst, scope)
}

// routes asks the kernel for path MTUs. A socket that is connected to an address looks up the route and its exceptions
// with the same mark as packets have; it sends nothing.
type routes struct {
	mu    sync.Mutex
	fd4   int // -1 when closed; guarded by mu, as all here
	fd6   int // -1 when closed or without IPv6
	known map[netip.Addr]pathMTU
}

type pathMTU struct {
	mtu   int
	until time.Time
}

// open makes the sockets. Their protocol is 255, because UDP sockets would take ports of the host.
func (r *routes) open(mark uint32) (err error) {
	r.known = make(map[netip.Addr]pathMTU)
	if r.fd4, err = openRoutes(unix.AF_INET, mark); err != nil {
		r.fd6 = -1
		return err
	}
	r.fd6, err = openRoutes(unix.AF_INET6, mark)
	if err == unix.EAFNOSUPPORT {
		return nil
	}
	return err
}

func openRoutes(family int, mark uint32) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	err = prepareSender(fd, family, mark, 0)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot prepare the socket that looks up routes: %w", err)
	}
	return fd, nil
}

func (r *routes) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range []*int{&r.fd4, &r.fd6} {
		if *fd > 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

// forget makes the next question about dst ask the kernel.
func (r *routes) forget(dst netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, dst)
}

func (r *routes) mtu(dst netip.Addr, scope uint32) int {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.known[dst]; ok && now.Before(k.until) {
		return k.mtu
	}
	mtu := min(r.ask(dst, scope), wire.MaxPacket)
	if len(r.known) >= maxRoutes {
		clear(r.known)
	}
	r.known[dst] = pathMTU{mtu: mtu, until: now.Add(routeLife)}
	return mtu
}

// ask returns the kernel's answer, or the largest packet when it has none.
func (r *routes) ask(dst netip.Addr, scope uint32) int {
	fd, level, option := r.fd4, unix.IPPROTO_IP, unix.IP_MTU
	var to unix.Sockaddr
	if dst.Is4() {
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	} else {
		fd, level, option = r.fd6, unix.IPPROTO_IPV6, unix.IPV6_MTU
		to = &unix.SockaddrInet6{Addr: dst.As16(), ZoneId: scope}
	}
	if fd < 0 || unix.Connect(fd, to) != nil {
		return wire.MaxPacket
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	// Or the next answer would be for this connection's source address and interface.
	disconnect(fd)
	if err != nil || mtu <= 0 {
		return wire.MaxPacket
	}
	return mtu
}
