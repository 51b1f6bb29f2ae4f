// Package fs shows a sysctl.Tree as a file system: one directory per level, one file per node, as /proc/sys does.
//
// The files behave as those of procfs do, to cat, echo, tar or a program in C: each write is one whole value, whatever the offset;
// a bad value is "Invalid argument" and changes nothing; nothing can be created, removed, renamed or given other rights; poll(2)
// reports a change as POLLERR|POLLPRI. In one thing they are better than procfs: the size is the true one, so that sendfile(2) and tar work.
//
// The package mounts through bazil.org/fuse, with the program's own executable as the fusermount3 that bazil wants (HelperMain), and
// it is the only one that imports bazil. It knows no particular variable, and never opens a file of its own mount: a process
// that does so cannot be killed any more. cmd/kipsecd and tests call it.
package fs
