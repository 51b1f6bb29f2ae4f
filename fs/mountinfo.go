package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// mountPoint is one line of /proc/PID/mountinfo, proc_pid_mountinfo(5).
type mountPoint struct {
	id, parent int
	device     string // major:minor
	path       string
	fstype     string
}

// topMount returns the uppermost mount on exactly dir in the mount namespace of the calling thread. The zero value says that there is none.
func topMount(dir string) (mountPoint, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return mountPoint{}, err
	}
	defer f.Close()
	return topMountIn(f, dir)
}

func topMountIn(r io.Reader, dir string) (top mountPoint, err error) {
	var on []mountPoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, err := parseMountPoint(lines.Text())
		if err != nil {
			return top, err
		}
		if m.path == dir {
			on = append(on, m)
		}
	}
	covered := map[int]bool{}
	for _, m := range on {
		covered[m.parent] = true
	}
	for _, m := range on {
		if !covered[m.id] {
			top = m
		}
	}
	return top, lines.Err()
}

// parseMountPoint reads a line: id parent major:minor root path options [tags] - type source options.
func parseMountPoint(line string) (m mountPoint, err error) {
	before, after, found := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !found || len(fields) < 6 || len(rest) < 1 {
		return m, fmt.Errorf("malformed line %q in mountinfo", line)
	}
	m.id, err = strconv.Atoi(fields[0])
	if err == nil {
		m.parent, err = strconv.Atoi(fields[1])
	}
	if err != nil {
		return m, fmt.Errorf("malformed line %q in mountinfo", line)
	}
	m.device, m.path, m.fstype = fields[2], unescape(fields[4]), rest[0]
	return m, nil
}

// unescape replaces \ooo by the byte of that octal number.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
