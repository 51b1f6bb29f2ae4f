package ipcomp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// TestZlibStreams restores what zlib compressed, with windows of other implementations, every kind of block, and codes
// as long as they come.
func TestZlibStreams(t *testing.T) {
	data, err := os.ReadFile("testdata/zlib.txt")
	if err != nil {
		t.Fatal(err)
	}
	sa := newSA(t, 0x3001, 0)
	rows := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		rows++
		f := strings.Fields(line)
		if len(f) != 7 {
			t.Fatalf("%d fields: %s", len(f), line)
		}
		times, err := strconv.Atoi(f[4])
		unit, err1 := hex.DecodeString(f[5])
		stream, err2 := hex.DecodeString(f[6])
		if err != nil || err1 != nil || err2 != nil {
			t.Fatal(err, err1, err2)
		}
		want := bytes.Repeat(unit, times)
		for _, p := range packets {
			if len(want)+len(p.header) > wire.MaxPacket {
				continue
			}
			b := p.compressed(0x3001, stream)
			next, why := Input(b, p.insert, p.nextOff, sa)
			if why != stats.OK || next != wire.ProtoUDP || !bytes.Equal(b.Bytes(), append(bytes.Clone(p.header), want...)) {
				t.Errorf("%s, %s: %v, next header %d, %d bytes of %d", f[0], p.name, why, next, b.Len()-len(p.header), len(want))
			}
			b.Free()
		}
	}
	if rows < 12 {
		t.Errorf("only %d rows", rows)
	}
}

// TestZlibReadsOurs has Python's zlib restore what Output made.
func TestZlibReadsOurs(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	sa := newSA(t, 0x3001, 0)
	var script strings.Builder
	script.WriteString("import zlib\n")
	n := 0
	for _, body := range [][]byte{
		make([]byte, 90), make([]byte, 1000), make([]byte, 65000),
		bytes.Repeat([]byte("a payload that repeats itself, "), 100),
		append(noise(700), make([]byte, 300)...), bytes.Repeat(noise(3000), 4), // distances beyond KAME's window need care
	} {
		b := packets[0].with(body)
		if why := Output(b, 20, 9, sa); why != stats.OK {
			t.Fatalf("%d bytes: %v", len(body), why)
		}
		fmt.Fprintf(&script, "d = zlib.decompressobj(-15)\nassert d.decompress(bytes.fromhex('%x')) == bytes.fromhex('%x')\nassert d.eof and not d.unused_data\n",
			b.Bytes()[24:], body)
		b.Free()
		n++
	}
	script.WriteString("print('read', " + strconv.Itoa(n) + ")\n")
	cmd := exec.CommandContext(t.Context(), python, "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != fmt.Sprintf("read %d\n", n) {
		t.Errorf("%v: %s", err, out)
	}
}
