package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// answers asks a daemon something every few milliseconds, in turns a dump of its SADB over PF_KEY and a file of its mount, and
// prints how long the answers took in microseconds: the middle one, those that 1 % and 0.1 % exceed, and the longest.
func answers(socket, file, seconds string) error {
	length, err := duration(seconds)
	if err != nil {
		return err
	}
	conn, err := net.Dial("unixpacket", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	var took []time.Duration
	for start := time.Now(); time.Since(start) < length; time.Sleep(3 * time.Millisecond) {
		asked := time.Now()
		if len(took)%2 == 0 {
			err = dump(conn)
		} else {
			_, err = os.ReadFile(file)
		}
		if err != nil {
			return err
		}
		took = append(took, time.Since(asked))
	}
	slices.Sort(took)
	n := len(took)
	fmt.Println(took[n/2].Microseconds(), took[n-1-n/100].Microseconds(), took[n-1-n/1000].Microseconds(), took[n-1].Microseconds())
	return nil
}

// dump asks for all SAs of ESP (SADB_DUMP, RFC 2367 §3.1.10) and reads the answer to its end.
func dump(conn net.Conn) error {
	request := make([]byte, 16)
	request[0], request[1], request[3] = 2, 10, 3 // PF_KEY_V2, SADB_DUMP, SADB_SATYPE_ESP
	binary.NativeEndian.PutUint16(request[4:], uint16(len(request)/8))
	binary.NativeEndian.PutUint32(request[12:], uint32(os.Getpid()))
	if _, err := conn.Write(request); err != nil {
		return err
	}
	for b := make([]byte, 65536); ; {
		n, err := conn.Read(b)
		if err != nil {
			return err
		}
		if n < len(request) || b[1] != request[1] {
			return fmt.Errorf("no answer to SADB_DUMP: %x", b[:n])
		}
		if seq := binary.NativeEndian.Uint32(b[8:]); seq == 0 || b[2] != 0 {
			return nil
		}
	}
}
