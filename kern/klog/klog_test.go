package klog

import (
	"bytes"
	"errors"
	"log/syslog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func noSyslog(string) (*syslog.Writer, error) { return nil, errors.New("no syslog here") }

func TestGate(t *testing.T) {
	open := false
	var out bytes.Buffer
	l := New("kipsecd", func() bool { return open })
	l.out, l.dial = &out, noSyslog

	l.Printf(syslog.LOG_ERR, "hidden")
	if out.Len() != 0 {
		t.Errorf("a closed gate let %q through", out.String())
	}
	open = true
	l.Printf(syslog.LOG_WARNING, "spi %d", 7)
	if got, want := out.String(), "kipsecd: warning: spi 7\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNilIsSilent(t *testing.T) {
	var l *Logger
	if l.Enabled() {
		t.Error("a nil logger is enabled")
	}
	l.Printf(syslog.LOG_ERR, "nothing")
}

func TestRateIsLimitedAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New("k", func() bool { return true })
		l.out, l.dial = &out, noSyslog
		for range Burst + 50 {
			l.Printf(syslog.LOG_ERR, "flood")
		}
		if got := strings.Count(out.String(), "flood"); got != Burst {
			t.Errorf("%d lines passed at once, want %d", got, Burst)
		}
		out.Reset()
		time.Sleep(time.Second)
		l.Printf(syslog.LOG_ERR, "later")
		if got, want := out.String(), "k: warning: 50 messages suppressed\nk: error: later\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestSyslogGetsThePriority(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var out bytes.Buffer
	l := New("kipsecd", func() bool { return true })
	l.out = &out
	l.dial = func(tag string) (*syslog.Writer, error) {
		return syslog.Dial("unixgram", path, syslog.LOG_DAEMON|syslog.LOG_DEBUG, tag)
	}
	defer l.Close()
	l.Printf(syslog.LOG_WARNING, "auth fail")
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	got := string(buf[:n])
	if !strings.HasPrefix(got, "<28>") || !strings.Contains(got, "auth fail") || out.Len() != 0 {
		t.Errorf("syslog got %q, standard error %q; want priority <28> (daemon.warning) and nothing", got, out.String())
	}
}
