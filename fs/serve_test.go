package fs_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"kipsec/fs"
	"kipsec/kern/sysctl"
)

// serveEnv makes the test binary a daemon that serves a tree on that directory until it is killed or its standard input ends. With
// parentEnv set it mounts where its parent is.
const (
	serveEnv  = "KIPSEC_TEST_SERVE"
	parentEnv = "KIPSEC_TEST_PARENT"
)

func serve(dir string) {
	tree := new(sysctl.Tree)
	err := tree.Add(sysctl.NewInt(sysctl.Spec{Name: "net.dfbit", Max: 2, Doc: "x"}))
	var m *fs.Mounted
	if err == nil {
		m, err = fs.Mount(dir, tree, fs.Options{InParent: os.Getenv(parentEnv) != ""})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = fmt.Scanln()
	if err := m.Unmount(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("bye")
	os.Exit(0)
}

var _ = testing.Short
var _ = time.Second
