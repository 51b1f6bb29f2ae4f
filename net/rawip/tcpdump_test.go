package rawip

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// What a foreign program sees on the wire.
func TestTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	cmd := exec.Command("tcpdump", "-l", "-n", "-v", "-c", "2", "-i", "v0", "esp")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.Do(cmd.Start)
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening on") {
	}
	s := a.sender(t, SenderConfig{})
	for i, w := range veth {
		send(t, s, esp(w.src, w.dst, uint32(0x10+i), 200))
	}
	seen, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"tos 0x28, ttl 33, id 17, offset 0, flags [none], proto ESP (50), length 200)",
		"10.0.8.1 > 10.0.8.2: ESP(spi=0x00001000,seq=0x10), length 180",
		"class 0x28, hlim 33, next-header ESP (50) payload length: 160)",
		"fd08::1 > fd08::2: ESP(spi=0x00001000,seq=0x11), length 160",
	} {
		if !strings.Contains(string(seen), want) {
			t.Errorf("tcpdump does not say %q:\n%s", want, seen)
		}
	}
	if strings.Contains(string(seen), "bad cksum") {
		t.Errorf("bad checksum:\n%s", seen)
	}
	io.Copy(io.Discard, said)
	cmd.Wait()
}
