package tun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// create opens the clone device and makes an interface of it. The descriptor does not block.
func create(c Config) (fd int, name string, err error) {
	ifr, err := unix.NewIfreq(c.Name)
	if err != nil {
		return -1, "", fmt.Errorf("%q cannot be the name of an interface: %w", c.Name, err)
	}
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("no /dev/net/tun: %w", err)
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if c.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	} else {
		flags |= unix.IFF_TUN_EXCL // never take over a device that somebody left
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
			return -1, "", fmt.Errorf("cannot make interface %s: the name is taken: %w", c.Name, err)
		}
		return -1, "", fmt.Errorf("cannot make interface %s: %w", c.Name, err)
	}
	return fd, ifr.Name(), nil
}

// offload is what the kernel hands over as one large packet.
type offload struct {
	udp bool // the kernel knows UDP segmentation (Linux 6.2), so it takes such packets too
}

// setOffload asks for as much as the kernel has. Even a kernel that has nothing works, only slower.
func setOffload(fd int) offload {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	const udp = unix.TUN_F_USO4 | unix.TUN_F_USO6
	for _, features := range []int{tcp | unix.TUN_F_TSO_ECN | udp, tcp | unix.TUN_F_TSO_ECN, tcp, unix.TUN_F_CSUM} {
		if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, features) == nil {
			return offload{udp: features&udp != 0}
		}
	}
	return offload{}
}

// configure sets the MTU and brings the interface up.
func configure(name string, c Config) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		s, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", name, err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", name, err)
	}
	if c.MTU != 0 {
		ifr.SetUint32(uint32(c.MTU))
		if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, ifr); err != nil {
			return fmt.Errorf("cannot set the MTU of %s to %d: %w", name, c.MTU, err)
		}
	}
	if c.Prepare != nil {
		if err := c.Prepare(name); err != nil {
			return err
		}
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", name, err)
	}
	return nil
}
