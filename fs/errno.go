package fs

import (
	"errors"
	"syscall"

	"kipsec/kern/sysctl"
)

// errno says which error number stands for an error of package sysctl. No other place in the package decides that for a value.
func errno(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sysctl.ErrSyntax), errors.Is(err, sysctl.ErrRange):
		return syscall.EINVAL
	case errors.Is(err, sysctl.ErrReadOnly):
		return syscall.EACCES
	case errors.Is(err, sysctl.ErrUnknown):
		return syscall.ENOENT
	}
	return syscall.EIO
}

// What the whole file system answers to what it does not do.
const (
	errFixed  = syscall.EPERM  // to whoever wants to create, remove, rename or change rights
	errNoCall = syscall.ENOSYS // the kernel then never asks again
	errTooBig = syscall.EINVAL // to values that no variable could take
)
