package sysctl

import (
	"math"
	"strings"
)

// maxDigits is the longest number that the kernel reads, in bytes with sign and prefix (kernel/sysctl.c proc_get_long).
const maxDigits = 20

// ParseInt reads a C int as Linux does for files of /proc/sys (kernel/sysctl.c proc_dointvec): blanks, an
// optional minus sign, digits; 0x leads hexadecimal and 0 octal digits. The number ends at a blank, a newline or the end of the text, and
// what comes after that is ignored. Anything else wraps ErrSyntax, what does not fit in 32 bits too.
func ParseInt(text string) (int32, error) {
	s := text
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	negative := strings.HasPrefix(s, "-")
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, ErrSyntax
	}
	magnitude, rest := parseDigits(digits)
	if used := len(s) - len(rest); used > maxDigits {
		return 0, ErrSyntax
	}
	if rest != "" && !strings.ContainsRune(" \t\n", rune(rest[0])) {
		return 0, ErrSyntax
	}
	switch {
	case negative && magnitude <= -math.MinInt32:
		return int32(-magnitude), nil
	case !negative && magnitude <= math.MaxInt32:
		return int32(magnitude), nil
	}
	return 0, ErrSyntax
}

// isSpace is the kernel's isspace: the blanks of ASCII and the no-break space of Latin-1.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' || c == 0xa0 }

// parseDigits reads digits in the base that their prefix says and returns what follows them. The value stops growing
// somewhere above 2³².
func parseDigits(s string) (value int64, rest string) {
	base := int64(10)
	switch {
	case len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' && digit(s[2]) < 16:
		base, s = 16, s[2:]
	case s[0] == '0':
		base = 8
	}
	for s != "" && digit(s[0]) < base {
		value = min(value*base+digit(s[0]), 1<<40)
		s = s[1:]
	}
	return value, s
}

// digit returns the value of a hexadecimal digit, or 16 when c is none.
func digit(c byte) int64 {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int64(c|0x20-'a') + 10
	}
	return 16
}
