package key

import (
	"errors"
	"syscall"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// errnos translates the errors of the databases where a handler knows no better. The first match counts.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{sadb.ErrExist, syscall.EEXIST},
	{sadb.ErrNotFound, syscall.ENOENT},
	{spd.ErrExist, syscall.EEXIST},
	{spd.ErrNotFound, syscall.ENOENT},
	{alg.ErrKeyLength, syscall.EINVAL},
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
