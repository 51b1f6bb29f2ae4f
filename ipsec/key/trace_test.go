package key

import (
	"strings"
	"testing"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

// TestTrace: each combination of bits of net.key.debug tells its own lines, and no line has a key.
func TestTrace(t *testing.T) {
	var mask knob.Trace
	var lines []string
	e := New(Config{
		SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{}),
		Tracing: func(want knob.Trace) bool { return mask&want == want },
		Trace:   func(line string) { lines = append(lines, line) },
	})
	c := e.client(t)
	c.must(plain(pfkey.Register, pfkey.SATypeESP))
	for _, row := range []struct {
		mask knob.Trace
		want []string // the beginnings of the lines
	}{
		{0, nil},
		{0x01, nil}, {0x10, nil}, {0x0f, nil}, {0x70, nil}, {0x47, nil},
		{knob.KeyStamp, []string{
			"key_parse: SADB_ADD errno=0 satype=3 seq=16909060 pid=4711, 216 bytes", "key_sendup: SADB_ADD errno=0",
			"key_parse: SADB_ADD", "key_sendup: SADB_ADD errno=22 satype=3 seq=16909060 pid=4711, 16 bytes",
			"key_sendup: SADB_ACQUIRE errno=0 satype=3 seq=1 pid=0",
			"key_sendup: SADB_EXPIRE",
		}},
		{knob.KeyData, []string{
			"key_acquire: proto=50 mode=2 reqid=7 src=10.0.0.1 dst=10.0.0.2: sent with seq=1",
			"key_acquire: proto=50 mode=2 reqid=7 src=10.0.0.1 dst=10.0.0.2: held back",
			"key_timehandler: SA(SPI=1000 src=10.0.0.1 dst=10.0.0.2) has passed a lifetime, hard=false",
		}},
		{knob.KeyDump, []string{
			"key_parse: sadb_msg{ version=2 type=3 errno=0 satype=3 len=27 reserved=0 seq=16909060 pid=4711 sadb_ext{ len=2 type=1 } sadb_sa{ spi=1000 replay=4 state=1",
			"key_sendup: sadb_msg{ version=2 type=3 errno=0", "key_parse: sadb_msg{", "key_sendup: sadb_msg{ version=2 type=3 errno=22",
			"key_sendup: sadb_msg{ version=2 type=6", "key_sendup: sadb_msg{ version=2 type=8",
		}},
		{knob.AlgStamp, []string{"key_mature: SA(SPI=1000 src=10.0.0.1 dst=10.0.0.2) auth=3 (160 bits) encrypt=12 (128 bits)"}},
		{knob.AlgData, []string{"esp_cbc_mature aes-cbc: invalid key length 136."}},
	} {
		mask, lines = row.mask, nil
		c.must(addMsg(pfkey.Add, 1000))
		c.ask(with(addMsg(pfkey.Add, 1001), func(m *pfkey.Message) { m.KeyEnc = &pfkey.Key{Bits: 136, Key: make([]byte, 17)} }))
		e.acquires = acquires{}
		acquired(t, e, need)
		acquired(t, e, need)
		e.Expire(e.cfg.SADB.Get(wire.ProtoESP, 1000, need.Src, need.Dst), false)
		mask = 0
		c.messages()
		if len(lines) != len(row.want) {
			t.Errorf("%#x: %d lines, want %d: %q", row.mask, len(lines), len(row.want), lines)
		}
		for i, line := range lines[:min(len(lines), len(row.want))] {
			if !strings.HasPrefix(line, row.want[i]) || strings.Contains(line, "\n") || len(line) > longestTrace+100 {
				t.Errorf("%#x: line %d is\n%s\nwant\n%s", row.mask, i, line, row.want[i])
			}
			if hasKey([]byte(line)) || strings.Contains(line, "30313233") {
				t.Errorf("a key in %q", line)
			}
		}
		c.must(saMsg(pfkey.Delete, 1000))
		c.messages()
	}
	for _, b := range [][]byte{nil, {2}, make([]byte, 15)} {
		mask, lines = 0x77, nil
		c.socket.Handle(b)
		if len(lines) != 3 {
			t.Errorf("%d bytes: %q", len(b), lines)
		}
	}
}
