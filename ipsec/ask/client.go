package ask

import (
	"errors"
	"io"
	"net"
	"time"

	"kipsec/ipsec/pfkey"
)

// Explain asks the kipsecd behind the socket at path what would happen to an IP packet that leaves, arrives in clear or is
// forwarded. The error is also the kernel's, for what is no packet.
func Explain(path string, dir pfkey.Dir, packet []byte) (text string, err error) {
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := c.Write(append([]byte{opExplain, byte(dir)}, packet...)); err != nil {
		return "", err
	}
	return receive(c, make([]byte, maxText))
}

// Drops calls line with a text for each packet that is dropped from now on, first with an empty one when it has begun. It
// ends with the error of line, or with io.EOF when kipsecd has hung up.
func Drops(path string, line func(text string) error) error {
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte{opDrops}); err != nil {
		return err
	}
	b := make([]byte, maxText)
	for {
		text, err := receive(c, b)
		if err == nil {
			err = line(text)
		}
		if err != nil {
			return err
		}
	}
}

func receive(c net.Conn, b []byte) (string, error) {
	n, err := c.Read(b)
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", io.EOF
	case b[0] != isText:
		return "", errors.New(string(b[1:n]))
	}
	return string(b[1:n]), nil
}
