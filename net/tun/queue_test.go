package tun

import (
	"strings"
	"testing"
)

// TestLengthen: more packets may wait, until that is taken back; what somebody else has set meanwhile remains.
func TestLengthen(t *testing.T) {
	h := newHost(t, "a")
	d := h.open(t, Config{Name: "enc0", MTU: 1400})
	length := func() string {
		_, after, _ := strings.Cut(h.Sh("ip -o link show enc0"), " qlen ")
		return strings.Fields(strings.ReplaceAll(after, "\\", " "))[0]
	}
	before := length()
	var restore func() error
	h.Do(func() (err error) {
		restore, err = Lengthen(d.Name(), 1000)
		return err
	})
	if got := length(); got != "1500" || before != "500" {
		t.Errorf("from %s to %s, want from 500 to 1500", before, got)
	}
	h.Do(restore)
	if got := length(); got != before {
		t.Errorf("back to %s, want %s", got, before)
	}
	h.Do(func() (err error) {
		restore, err = Lengthen(d.Name(), 1000)
		return err
	})
	h.Sh("ip link set enc0 txqueuelen 77")
	h.Do(restore)
	if got := length(); got != "77" {
		t.Errorf("somebody set 77, now it is %s", got)
	}
	if _, err := Lengthen("enc99", 1); err == nil {
		t.Error("no error about an interface that is not there")
	}
}
