package sysctl

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// numbers are texts and what a variable that held 7 holds after they were written; bad ones leave it.
var numbers = []struct {
	text string
	want int32
	bad  bool
}{
	{text: "5", want: 5},
	{text: "5\n", want: 5},
	{text: " 5 ", want: 5},
	{text: "\t5\t", want: 5},
	{text: "\n\v\f\r5", want: 5},
	{text: "\xa05", want: 5},
	{text: "5\r", bad: true},
	{text: "5\v", bad: true},
	{text: "0", want: 0},
	{text: "-0", want: 0},
	{text: "-5", want: -5},
	{text: "- 5", bad: true},
	{text: "--5", bad: true},
	{text: "+5", bad: true},
	{text: "-", bad: true},
	{text: "0x10", want: 16},
	{text: "0X1f", want: 31},
	{text: "-0x10", want: -16},
	{text: "0x", bad: true},
	{text: "0xg", bad: true},
	{text: "010", want: 8},
	{text: "08", bad: true},
	{text: "70 71", want: 70},
	{text: "70\n71", want: 70},
	{text: "70 bad", want: 70},
	{text: "70bad", bad: true},
	{text: "5,6", bad: true},
	{text: "1e3", bad: true},
	{text: "bad", bad: true},
	{text: "\n", bad: true},
	{text: " ", bad: true},
	{text: "\x00", bad: true},
	{text: "5\x00", bad: true},
	{text: "5 \x00", want: 5},
	{text: "٥", bad: true},
	{text: "2147483647", want: 2147483647},
	{text: "2147483648", bad: true},
	{text: "-2147483648", want: -2147483648},
	{text: "-2147483649", bad: true},
	{text: "0xffffffff", bad: true},
	{text: "4294967296", bad: true},
	{text: "18446744073709551621", bad: true},
	{text: "99999999999999999999999999", bad: true},
	{text: "00000000000000000005", want: 5},
	{text: "000000000000000000005", bad: true},
	{text: "-0000000000000000005", want: -5},
	{text: "-00000000000000000005", bad: true},
}

func TestParseInt(t *testing.T) {
	for _, test := range numbers {
		got, err := ParseInt(test.text)
		switch {
		case test.bad && !errors.Is(err, ErrSyntax):
			t.Errorf("ParseInt(%q) = %d, %v; want ErrSyntax", test.text, got, err)
		case !test.bad && (err != nil || got != test.want):
			t.Errorf("ParseInt(%q) = %d, %v; want %d", test.text, got, err, test.want)
		}
	}
}

// TestKernelAgrees writes the same texts to a variable of Linux that takes any int, in a network namespace of its own.
func TestKernelAgrees(t *testing.T) {
	const file = "/proc/sys/net/ipv4/conf/lo/tag"
	skip := make(chan string)
	go func() {
		defer close(skip)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			skip <- "no network namespace of our own: " + err.Error()
			return
		}
		for _, test := range numbers {
			if err := os.WriteFile(file, []byte("7"), 0); err != nil {
				skip <- err.Error()
				return
			}
			err := os.WriteFile(file, []byte(test.text), 0)
			text, _ := os.ReadFile(file)
			got, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
			want := test.want
			if test.bad {
				want = 7
			}
			if parseErr != nil || int32(got) != want || (err != nil) != test.bad {
				t.Errorf("Linux: writing %q gives %q, %v; our table says %d, bad %v", test.text, text, err, want, test.bad)
			}
		}
	}()
	if why := <-skip; why != "" {
		t.Skip(why)
	}
}

func FuzzParseInt(f *testing.F) {
	for _, test := range numbers {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseInt(text)
		if err != nil {
			if !errors.Is(err, ErrSyntax) || v != 0 {
				t.Fatalf("ParseInt(%q) = %d, %v", text, v, err)
			}
			return
		}
		again, err := ParseInt(strconv.Itoa(int(v)) + "\n")
		if err != nil || again != v {
			t.Fatalf("ParseInt(%q) = %d, printed and read again %d, %v", text, v, again, err)
		}
	})
}
