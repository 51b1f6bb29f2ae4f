package kern

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kipsec/net/mbuf"
	"kipsec/net/pipe"
	"kipsec/net/wire"
)

// node is a whole kernel without devices: its clear side and its wire are pipes in memory.
type node struct {
	*Kernel
	t     *testing.T
	path  *Path
	stack *defragmented // where a host's stack would be
}

// twoNodes joins two kernels by a wire. What passes on it is given to tap.
func twoNodes(t *testing.T, mtu int, tap func([]byte)) (left, right *node) {
	t.Helper()
	wireLeft, wireRight := pipe.New(pipe.Config{MTU: mtu, Tap: tap})
	return newNode(t, wireLeft, mtu), newNode(t, wireRight, mtu)
}

func newNode(t *testing.T, onWire *pipe.End, mtu int) *node {
	t.Helper()
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	stack, local := pipe.New(pipe.Config{})
	path := &Path{Engine: k.Engine, Local: local, Wire: onWire, MTU: func(addr) int { return mtu }, early: &k.early}
	k.Engine.PathMTU, k.Engine.Local = path.MTU, func(addr) bool { return true }
	k.loop(path.Outbound)
	k.loop(func() error { return path.Inbound(&defragmented{End: onWire}) })
	t.Cleanup(func() {
		local.Close()
		onWire.Close()
		if err := k.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return &node{Kernel: k, t: t, path: path, stack: &defragmented{End: stack}}
}

func (n *node) script(text string) {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := n.LoadScript(file); err != nil {
		n.t.Fatal(err)
	}
}

// send gives a packet to the kernel as its host's stack would.
func (n *node) send(packet []byte) {
	n.t.Helper()
	b := mbuf.Get(len(packet))
	copy(b.Append(len(packet)), packet)
	if _, err := n.stack.WriteBatch([]*mbuf.Buf{b}); err != nil {
		n.t.Fatal(err)
	}
}

// receive waits for what the kernel gives to the stack.
func (n *node) receive() []byte {
	n.t.Helper()
	got := make(chan []byte, 1)
	go func() {
		bufs := make([]*mbuf.Buf, 1)
		if _, err := n.stack.ReadBatch(bufs); err == nil {
			got <- bytes.Clone(bufs[0].Bytes())
			bufs[0].Free()
		}
	}()
	select {
	case b := <-got:
		return b
	case <-time.After(5 * time.Second):
		n.t.Fatal("nothing arrives")
		return nil
	}
}

const script = `
add %[1]s %[2]s esp 0x1001 -m %[3]s -r 4 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add %[2]s %[1]s esp 0x1002 -m %[3]s -r 4 -E aes-cbc "sixteen byte key" -A hmac-sha2-256 "0123456789abcdef0123456789abcdef";
spdadd %[4]s %[5]s any -P %[6]s ipsec esp/%[3]s/%[8]s/require;
spdadd %[5]s %[4]s any -P %[7]s ipsec esp/%[3]s/%[9]s/require;
`

// TestTwoKernels sends packets of many sizes from one kernel's stack to the other's and back, in both modes, over a
// wire of 1,500 bytes.
func TestTwoKernels(t *testing.T) {
	for _, test := range []struct{ mode, gwLeft, gwRight, left, right string }{
		{"transport", "10.1.0.1", "10.1.0.2", "10.1.0.1", "10.1.0.2"},
		{"transport", "fd00:1::1", "fd00:1::2", "fd00:1::1", "fd00:1::2"},
		{"tunnel", "10.1.0.1", "10.1.0.2", "10.11.0.1", "10.12.0.2"},
		{"tunnel", "fd00:1::1", "fd00:1::2", "fd00:11::1", "fd00:12::2"},
		{"tunnel", "10.1.0.1", "10.1.0.2", "fd00:11::1", "fd00:12::2"},
		{"tunnel", "fd00:1::1", "fd00:1::2", "10.11.0.1", "10.12.0.2"},
	} {
		t.Run(test.mode+" "+test.left+" by "+test.gwLeft, func(t *testing.T) {
			left, right := twoNodes(t, 1500, func(b []byte) {
				var p wire.Packet
				if err := wire.Parse(b, &p); err != nil || len(b) > 1500 || p.Proto != wire.ProtoESP && p.FragOffset == 0 {
					t.Errorf("on the wire: %d bytes, protocol %d, %v", len(b), p.Proto, err)
				}
			})
			there, back := "", ""
			if test.mode == "tunnel" {
				there, back = test.gwLeft+"-"+test.gwRight, test.gwRight+"-"+test.gwLeft
			}
			left.script(fmt.Sprintf(script, test.gwLeft, test.gwRight, test.mode, test.left, test.right, "out", "in", there, back))
			right.script(fmt.Sprintf(script, test.gwLeft, test.gwRight, test.mode, test.left, test.right, "in", "out", there, back))
			sizes := []int{0, 1, 500, 1400, 1460, 1472, 3000, 20000, 65400}
			if test.mode == "tunnel" {
				sizes = append(sizes, 65507)
			}
			for _, size := range sizes {
				exchange(t, left, right, test.left, test.right, size)
				exchange(t, right, left, test.right, test.left, size)
			}
		})
	}
}

func exchange(t *testing.T, from, to *node, src, dst string, size int) {
	t.Helper()
	packet := datagram(src, dst, size)
	from.send(packet)
	if got := to.receive(); !bytes.Equal(got, packet) {
		t.Errorf("%s to %s, %d bytes: arrived differently (%d bytes)", src, dst, size, len(got))
	}
}

// TestRefusalReachesTheSender: a datagram that transport mode has no room for is answered with an ICMP error.
func TestRefusalReachesTheSender(t *testing.T) {
	left, _ := twoNodes(t, 1500, func([]byte) { t.Error("something is on the wire") })
	left.script(fmt.Sprintf(script, "10.1.0.1", "10.1.0.2", "transport", "10.1.0.1", "10.1.0.2", "out", "in", "", ""))
	left.send(datagram("10.1.0.1", "10.1.0.2", 65507))
	answer := left.receive()
	var p wire.Packet
	if err := wire.Parse(answer, &p); err != nil || p.Proto != wire.ProtoICMP || p.Flow.Dst.String() != "10.1.0.1" {
		t.Fatalf("%v, protocol %d to %s", err, p.Proto, p.Flow.Dst)
	}
	if icmp := wire.ICMP(answer[p.Header:]); icmp.Type() != wire.ICMPUnreachable || icmp.Code() != wire.ICMPCodeNeedFrag {
		t.Errorf("type %d, code %d", icmp.Type(), icmp.Code())
	}
}
