package key

import (
	"slices"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
)

// TestDumpFilter: Linux's extension 26 picks SAs by their addresses. FreeBSD's of the same number is shorter and is a window.
func TestDumpFilter(t *testing.T) {
	c := newEngine().client(t)
	for i, ends := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"10.0.1.1", "10.0.0.2"}, {"10.0.0.1", "10.9.0.2"}, {"fd00::1", "fd00::2"}} {
		c.must(with(addMsg(pfkey.Add, uint32(1000+i)), func(m *pfkey.Message) { m.Src, m.Dst = addr(ends[0]), addr(ends[1]) }))
	}
	v4 := func(src, dst []byte, srcBits, dstBits uint8) *pfkey.Filter {
		f := &pfkey.Filter{Family: syscall.AF_INET, SrcBits: srcBits, DstBits: dstBits}
		copy(f.Src[:], src)
		copy(f.Dst[:], dst)
		return f
	}
	for _, row := range []struct {
		name   string
		filter *pfkey.Filter
		spis   []uint32
		errno  syscall.Errno
	}{
		{"everything", &pfkey.Filter{}, []uint32{1000, 1001, 1002, 1003}, 0},
		{"IPv4", v4(nil, nil, 0, 0), []uint32{1000, 1001, 1002}, 0},
		{"IPv6", &pfkey.Filter{Family: syscall.AF_INET6}, []uint32{1003}, 0},
		{"a source", v4([]byte{10, 0, 0, 1}, nil, 32, 0), []uint32{1000, 1002}, 0},
		{"both", v4([]byte{10, 0, 0, 0}, []byte{10, 0, 0, 0}, 24, 16), []uint32{1000}, 0},
		{"nothing", v4([]byte{1}, nil, 8, 0), nil, syscall.ENOENT},
		{"a prefix that is too long", v4(nil, nil, 33, 0), nil, syscall.EINVAL},
		{"an unknown family", &pfkey.Filter{Family: 16}, nil, syscall.EINVAL},
	} {
		var spis []uint32
		for i, m := range c.dump(with(plain(pfkey.Dump, 0), func(m *pfkey.Message) { m.Filter = row.filter })) {
			if m.Errno != row.errno || m.Errno == 0 && int(m.Seq) != len(row.spis)-1-i {
				t.Errorf("%s: %v, seq %d", row.name, m.Errno, m.Seq)
			}
			if m.SA != nil {
				spis = append(spis, m.SA.SPI)
			}
		}
		slices.Sort(spis)
		if !slices.Equal(spis, row.spis) {
			t.Errorf("%s: %v", row.name, spis)
		}
	}
}
