package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Netns identifies a network namespace: device and inode of its file under /proc/PID/ns.
type Netns struct {
	Dev, Ino uint64
}

// String returns "DEV:INODE" in decimal, the form of the file netns.
func (n Netns) String() string { return fmt.Sprintf("%d:%d", n.Dev, n.Ino) }

// Self returns the network namespace of the calling thread.
func Self() (Netns, error) { return NetnsOf("/proc/thread-self/ns/net") }

// NetnsOf returns the network namespace that a file stands for: /proc/PID/ns/net, or one below /run/netns.
func NetnsOf(path string) (Netns, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Netns{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return Netns{Dev: st.Dev, Ino: st.Ino}, nil
}

// netnsDir is where ip-netns(8) keeps the names of network namespaces. Tests change it.
var netnsDir = "/run/netns"

// NetnsName returns the name that ip-netns(8) gives to a network namespace, or "".
func NetnsName(id Netns) string {
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if other, err := NetnsOf(filepath.Join(netnsDir, e.Name())); err == nil && other == id {
			return e.Name()
		}
	}
	return ""
}

func parseNetns(text string) (Netns, error) {
	var id Netns
	n, err := fmt.Sscanf(text, "%d:%d", &id.Dev, &id.Ino)
	if n != 2 || err != nil || text != id.String() || strings.ContainsAny(text, "+-") {
		return Netns{}, fmt.Errorf("%q is not DEV:INODE", text)
	}
	return id, nil
}
