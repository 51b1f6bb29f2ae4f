package sockopt_test

import (
	"context"
	"fmt"
	"net"

	"kipsec/ipsec/sockopt"
)

// A server whose connections are all protected.
func ExampleControl() {
	config := net.ListenConfig{Control: sockopt.Control("in ipsec esp/transport//require", "out ipsec esp/transport//require")}
	listener, err := config.Listen(context.Background(), "tcp", "0.0.0.0:7000")
	if err != nil {
		fmt.Println(err) // also where there is no kipsecd
		return
	}
	defer listener.Close()
}

// What an IKE daemon does, so that no policy shuts it out.
func ExampleSet() {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: 500})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		fmt.Println(err)
		return
	}
	raw.Control(func(fd uintptr) {
		for _, policy := range []string{"in bypass", "out bypass"} {
			if err := sockopt.Set(int(fd), policy); err != nil {
				fmt.Println(err)
			}
		}
	})
}
