package key

import (
	"errors"
	"syscall"

	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// errnos translates the errors of the databases. Whatever is not here, bad values and refused keys and algorithms
// above all, is EINVAL.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{sadb.ErrExist, syscall.EEXIST},
	{sadb.ErrNotFound, syscall.ENOENT},
	{sadb.ErrProtocol, syscall.EPROTONOSUPPORT},
	{sadb.ErrFull, syscall.ENOBUFS},
	{spd.ErrExist, syscall.EEXIST},
	{spd.ErrNotFound, syscall.ENOENT},
	{spd.ErrFull, syscall.ENOBUFS},
}

// errno is what a client is told about err.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	for _, row := range errnos {
		if errors.Is(err, row.err) {
			return row.errno
		}
	}
	return syscall.EINVAL
}
