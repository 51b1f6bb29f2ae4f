package packet

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// tap says whether a packet socket sees packets. One that does costs each packet of the namespace some 200 ns, whatever its filter
// says.
type tap bool

// idleType is a frame type that is on no wire (reserved by IEEE). A socket cannot be bound back to none.
const idleType = 0xffff

// turn makes the socket see all packets from now on, or none. It waits until those on their way have passed.
func (t *tap) turn(fd int, on bool) error {
	if bool(*t) == on {
		return nil
	}
	kind := uint16(idleType)
	if on {
		kind = unix.ETH_P_ALL
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(kind)}); err != nil {
		return fmt.Errorf("cannot bind the packet socket: %w", err)
	}
	*t = tap(on)
	return nil
}
