package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"kipsec/kern/sysctl"
)

// defaultFile is what -p reads when no file is named.
const defaultFile = "/etc/kipsec/sysctl.conf"

// systemDirs are the directories whose *.conf files --system reads, as procps does: sorted by their last name, and where two have the
// same one the first directory wins.
var systemDirs = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// loadSystem sets what the system's files say, and then what kipsec's say.
func (c *command) loadSystem() {
	files := append(c.confFiles(systemDirs), c.etc+"/etc/sysctl.conf")
	files = append(files, c.confFiles([]string{"/etc/kipsec/sysctl.d"})...)
	files = append(files, c.etc+defaultFile)
	files = slices.DeleteFunc(files, func(name string) bool {
		_, err := os.Stat(name)
		return errors.Is(err, os.ErrNotExist)
	})
	c.loadFiles(files)
}

// confFiles returns the *.conf files of directories.
func (c *command) confFiles(dirs []string) []string {
	byName := map[string]string{}
	for _, dir := range dirs {
		found, _ := filepath.Glob(c.etc + dir + "/*.conf") // the pattern is well-formed
		for _, file := range found {
			if _, taken := byName[filepath.Base(file)]; !taken {
				byName[filepath.Base(file)] = file
			}
		}
	}
	var files []string
	for _, file := range byName {
		files = append(files, file)
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return files
}

// confFile is a file that has been read.
type confFile struct {
	name     string
	settings []sysctl.Setting
}

// loadFiles reads all files and then sets what they say. A name with *, ? or [ stands for the variables of Linux that match it, but not
// for those that stand in the files by themselves.
func (c *command) loadFiles(names []string) {
	var files []confFile
	plain := map[string]bool{}
	for _, name := range names {
		f := c.readFile(name)
		for _, s := range f.settings {
			plain[sysctl.Path(s.Name)] = true
		}
		files = append(files, f)
	}
	for _, f := range files {
		if c.system && !c.quiet {
			fmt.Fprintf(c.out, "* Applying %s ...\n", f.name)
		}
		for _, s := range f.settings {
			switch pattern := sysctl.Path(s.Name); {
			case s.Exclude:
			case strings.ContainsAny(pattern, "*?["):
				c.setMatching(s, pattern, plain)
			default:
				c.set(s)
			}
		}
	}
}

// readFile reads one file, "-" being standard input.
func (c *command) readFile(name string) confFile {
	f := confFile{name: name}
	in := c.in
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			c.fail("cannot open %q: %s", name, reason(err))
			return f
		}
		defer file.Close()
		in = file
	}
	for s, err := range sysctl.ReadConf(in) {
		switch {
		case errors.Is(err, sysctl.ErrSyntax):
			c.fail("%s(%d): invalid syntax, continuing...", name, s.Line)
		case err != nil && !errors.Is(err, io.EOF):
			c.fail("%s: %v", name, err)
		default:
			f.settings = append(f.settings, s)
		}
	}
	return f
}

// setMatching sets the variables of Linux that match a pattern.
func (c *command) setMatching(s sysctl.Setting, pattern string, except map[string]bool) {
	if _, err := path.Match(pattern, ""); err != nil {
		c.failSetting(s, "%s: malformed pattern", s.Name)
		return
	}
	found, _ := filepath.Glob(filepath.Join(c.linux, pattern))
	for _, file := range found {
		name, err := filepath.Rel(c.linux, file)
		if err == nil && filepath.IsLocal(name) && !except[name] {
			one := s
			one.Name = sysctl.Dotted(name)
			c.set(one)
		}
	}
}
