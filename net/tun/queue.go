package tun

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Lengthen lets more packets wait for the reader of the device, beyond which the kernel drops them. It returns what makes it as
// before. Both act in the network namespace of the calling thread.
func Lengthen(name string, by int) (restore func() error, err error) {
	before, err := queueLength(name, func(now uint32) uint32 { return now + uint32(by) })
	if err != nil {
		return nil, err
	}
	return func() error {
		_, err := queueLength(name, func(now uint32) uint32 {
			if now != before+uint32(by) {
				return now // somebody else has changed it
			}
			return before
		})
		return err
	}, nil
}

// queueLength changes the length of the device's queue (txqueuelen) and returns what it was.
func queueLength(name string, change func(now uint32) uint32) (before uint32, err error) {
	s, err := ioctlSocket()
	if err != nil {
		return 0, fmt.Errorf("cannot configure %s: %w", name, err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("cannot configure %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFTXQLEN, ifr); err != nil {
		return 0, fmt.Errorf("cannot read how many packets may wait for %s: %w", name, err)
	}
	before = ifr.Uint32()
	ifr.SetUint32(change(before))
	if err := unix.IoctlIfreq(s, unix.SIOCSIFTXQLEN, ifr); err != nil {
		return 0, fmt.Errorf("cannot change how many packets may wait for %s: %w", name, err)
	}
	return before, nil
}
