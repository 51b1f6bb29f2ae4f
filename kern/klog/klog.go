// Package klog is the kernel's log(9): short lines with a priority, sent through syslog(3), limited in rate.
//
// Where there is no syslog the lines go to standard error with the priority as a prefix. A gate, in practice
// net.inet.ipsec.debug, decides whether a line is made at all, so a caller on the packet path asks Enabled before it
// formats anything. The package knows nothing of packets, and nobody gives it a key. The engine, the key engine and
// the daemon call it.
package klog

import (
	"fmt"
	"io"
	"log/syslog"
	"os"
	"sync"
	"time"
)

const (
	// Burst is how many lines pass at once, Rate how many a second after that.
	Burst = 100
	Rate  = 20

	redial = 5 * time.Second  // between two attempts to reach a syslog that is not there
	admit  = 10 * time.Second // between two lines about suppressed ones
)

// Logger writes lines. Its methods are safe for concurrent use; a nil Logger is silent.
type Logger struct {
	gate func() bool
	tag  string

	mu         sync.Mutex
	out        io.Writer      // guarded by mu; standard error, unless a test replaced it
	sys        *syslog.Writer // guarded by mu; nil while there is no syslog
	lastDial   time.Time      // guarded by mu
	dial       func(tag string) (*syslog.Writer, error)
	tokens     float64   // guarded by mu
	lastRefill time.Time // guarded by mu
	suppressed uint64    // guarded by mu
	admitted   time.Time // guarded by mu; when a line last told of suppressed ones
}

// New returns a logger whose lines carry tag and pass only while gate returns true.
func New(tag string, gate func() bool) *Logger {
	return &Logger{gate: gate, tag: tag, out: os.Stderr, dial: dialSyslog, tokens: Burst, lastRefill: time.Now()}
}

func dialSyslog(tag string) (*syslog.Writer, error) {
	return syslog.New(syslog.LOG_DAEMON|syslog.LOG_DEBUG, tag)
}

// Enabled says whether a line would be logged now, so that a caller need not build it.
func (l *Logger) Enabled() bool { return l != nil && l.gate() }

// Printf logs a line of the given priority if the gate is open and the rate allows it.
func (l *Logger) Printf(level syslog.Priority, format string, args ...any) {
	if !l.Enabled() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.allowLocked(now) {
		l.suppressed++
		return
	}
	if l.suppressed > 0 && now.Sub(l.admitted) >= admit {
		n := l.suppressed
		l.suppressed, l.admitted = 0, now
		l.writeLocked(syslog.LOG_WARNING, fmt.Sprintf("%d messages suppressed", n))
	}
	l.writeLocked(level, fmt.Sprintf(format, args...))
}

// Close ends the connection to syslog.
func (l *Logger) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sys != nil {
		l.sys.Close()
		l.sys = nil
	}
}

// allowLocked takes a token from the bucket. Must hold mu.
func (l *Logger) allowLocked(now time.Time) bool {
	l.tokens = min(Burst, l.tokens+now.Sub(l.lastRefill).Seconds()*Rate)
	l.lastRefill = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// writeLocked sends one line to syslog, or to standard error where there is none. Must hold mu.
func (l *Logger) writeLocked(level syslog.Priority, line string) {
	if l.sys == nil && (l.lastDial.IsZero() || time.Since(l.lastDial) > redial) {
		l.lastDial = time.Now()
		l.sys, _ = l.dial(l.tag)
	}
	if l.sys != nil {
		if send(l.sys, level, line) == nil {
			return
		}
		l.sys.Close()
		l.sys = nil
	}
	fmt.Fprintf(l.out, "%s: %s: %s\n", l.tag, levelName(level), line)
}

func send(w *syslog.Writer, level syslog.Priority, line string) error {
	switch level {
	case syslog.LOG_ERR:
		return w.Err(line)
	case syslog.LOG_WARNING:
		return w.Warning(line)
	case syslog.LOG_NOTICE:
		return w.Notice(line)
	case syslog.LOG_INFO:
		return w.Info(line)
	default:
		return w.Debug(line)
	}
}

func levelName(level syslog.Priority) string {
	switch level {
	case syslog.LOG_ERR:
		return "error"
	case syslog.LOG_WARNING:
		return "warning"
	case syslog.LOG_NOTICE:
		return "notice"
	case syslog.LOG_INFO:
		return "info"
	default:
		return "debug"
	}
}
