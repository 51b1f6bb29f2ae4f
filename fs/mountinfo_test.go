package fs

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"kipsec/kern/sysctl"
)

func TestTopMount(t *testing.T) {
	const table = `21 1 8:1 / / rw,relatime - ext4 /dev/root rw
30 21 0:40 / /run/kipsec/a/sys rw,nosuid shared:5 - fuse.kipsec kipsec rw
31 30 0:41 / /run/kipsec/a/sys rw,nosuid shared:5 master:2 - fuse.kipsec kipsec rw
33 21 0:43 / /run/with\040blank\134 rw - tmpfs tmpfs rw
35 34 0:45 / /stack rw - fuse.kipsec kipsec rw
34 21 0:44 / /stack rw - tmpfs tmpfs rw
`
	for _, test := range []struct{ dir, device, fstype string }{
		{"/", "8:1", "ext4"},
		{"/run/kipsec/a/sys", "0:41", "fuse.kipsec"},
		{`/run/with blank\`, "0:43", "tmpfs"},
		{"/stack", "0:45", "fuse.kipsec"},
		{"/run/kipsec/a", "", ""},
		{"/run/kipsec/a/sys/", "", ""},
	} {
		m, err := topMountIn(strings.NewReader(table), test.dir)
		if err != nil || m.device != test.device || m.fstype != test.fstype {
			t.Errorf("on %s: %+v, %v; want %s %s", test.dir, m, err, test.device, test.fstype)
		}
	}
	for _, bad := range []string{"", "x", "1 2 3:4 / /a rw", "1 2 3:4 / /a rw -", "a 2 3:4 / /a rw - t s o", "1 b 3:4 / /a rw - t s o"} {
		if _, err := topMountIn(strings.NewReader(bad+"\n"), "/a"); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzMountInfo(f *testing.F) {
	f.Add(`30 21 0:40 / /a\040b rw shared:5 - fuse.kipsec kipsec rw`)
	f.Add(`1 1 1:1 / \ rw - x`)
	f.Fuzz(func(t *testing.T, line string) {
		m, err := parseMountPoint(line)
		if err == nil && (m.fstype == "" || m.device == "" || len(m.path) > len(line)) {
			t.Fatalf("%q becomes %+v", line, m)
		}
	})
}

func TestErrno(t *testing.T) {
	for _, test := range []struct{ err, want error }{
		{nil, nil},
		{&sysctl.Error{Name: "a", Err: sysctl.ErrSyntax}, syscall.EINVAL},
		{fmt.Errorf("%w: x", sysctl.ErrRange), syscall.EINVAL},
		{sysctl.ErrReadOnly, syscall.EACCES},
		{sysctl.ErrUnknown, syscall.ENOENT},
		{io.ErrUnexpectedEOF, syscall.EIO},
	} {
		if got := errno(test.err); got != test.want {
			t.Errorf("errno(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

func TestHelperArguments(t *testing.T) {
	o, err := parseMountOptions("fsname=kipsec,subtype=kipsec,default_permissions,allow_other")
	if err != nil || o.source != "kipsec" || o.fstype != "fuse.kipsec" || o.data != ",default_permissions,allow_other" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"", "suid", "fd=3", "allow_other,user_id=0"} {
		if _, err := parseMountOptions(bad); err == nil {
			t.Errorf("option %q is accepted", bad)
		}
	}
	for _, args := range [][]string{nil, {"-u", "/x"}, {"-o", "allow_other", "/x", "--"}} {
		if err := helper(args); err == nil {
			t.Errorf("arguments %q are accepted", args)
		}
	}
}

// TestHelperError checks that an errno survives the way through the helper's file.
func TestHelperError(t *testing.T) {
	err := decodeError(encodeError(fmt.Errorf("mount /x: %w", syscall.EPERM)))
	if !errors.Is(err, syscall.EPERM) || err.Error() != "mount /x: operation not permitted" {
		t.Errorf("%v", err)
	}
	if err := decodeError(encodeError(errors.New("no number 1"))); err.Error() != "no number 1" {
		t.Errorf("%v", err)
	}
}

func TestInodeNumbers(t *testing.T) {
	if inode("") != 1 || inode("net") < 2 || inode("net") == inode("net.key") {
		t.Errorf("%d %d %d", inode(""), inode("net"), inode("net.key"))
	}
}
