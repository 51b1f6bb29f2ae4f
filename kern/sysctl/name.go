package sysctl

import "strings"

// Path turns a name into a path below the root of a tree of files, net/inet/ipsec/dfbit. As for sysctl(8) of Linux, the first separator
// decides: after a dot, dots separate and a slash stands for a dot; after a slash, slashes separate and a dot is itself.
func Path(name string) string {
	i := strings.IndexAny(name, "./")
	if i >= 0 && name[i] == '.' {
		name = swap(name)
	}
	return strings.Trim(name, "/")
}

// Dotted is the inverse of Path: it turns a path below the root into a dotted name.
func Dotted(path string) string { return swap(strings.Trim(path, "/")) }

func swap(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s)
}

// validName reports whether name is dotted components of lower-case letters, digits and underscores.
func validName(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return false
		}
	}
	return true
}
