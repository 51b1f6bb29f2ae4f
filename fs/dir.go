package fs

import (
	"context"
	"hash/fnv"
	"os"
	"sync"
	"time"

	"bazil.org/fuse"
	fusefs "bazil.org/fuse/fs"

	"kipsec/kern/sysctl"
)

// forever is how long the kernel may keep what does not change.
const forever = time.Hour

// dir is a directory of the tree.
type dir struct {
	fsys *fileSystem
	name string // dotted, "" for the root

	mu       sync.Mutex
	children map[string]fusefs.Node // guarded by mu; nodes stay the same as long as the mount lives
}

var (
	_ fusefs.Node                = (*dir)(nil)
	_ fusefs.NodeRequestLookuper = (*dir)(nil)
	_ fusefs.HandleReadDirAller  = (*dir)(nil)
	_ fusefs.NodeSetattrer       = (*dir)(nil)
	_ fusefs.NodeGetxattrer      = (*dir)(nil)
	_ fusefs.NodeListxattrer     = (*dir)(nil)
	_ fusefs.HandleFlusher       = (*dir)(nil)
	_ fusefs.NodeRemover         = (*dir)(nil)
	_ fusefs.NodeRenamer         = (*dir)(nil)
	_ fusefs.NodeSymlinker       = (*dir)(nil)
	_ fusefs.NodeLinker          = (*dir)(nil)
	_ fusefs.NodeMknoder         = (*dir)(nil)
	_ fusefs.NodeMkdirer         = (*dir)(nil)
	_ fusefs.NodeCreater         = (*dir)(nil)
)

// fileSystem is what bazil serves.
type fileSystem struct {
	tree     *sysctl.Tree
	root     *dir
	uid, gid uint32 // who owns everything
	wakers   *wakers
}

var _ fusefs.FSStatfser = (*fileSystem)(nil)

func newFileSystem(tree *sysctl.Tree, w *wakers) *fileSystem {
	f := &fileSystem{tree: tree, uid: uint32(os.Getuid()), gid: uint32(os.Getgid()), wakers: w}
	f.root = &dir{fsys: f}
	return f
}

// Root returns the root directory.
func (f *fileSystem) Root() (fusefs.Node, error) { return f.root, nil }

// Statfs answers statfs(2): no blocks, as procfs.
func (f *fileSystem) Statfs(_ context.Context, _ *fuse.StatfsRequest, resp *fuse.StatfsResponse) error {
	resp.Bsize, resp.Namelen = 4096, 255
	return nil
}

// inode returns the inode number of a node or directory. It depends on nothing but the name.
func inode(name string) uint64 {
	if name == "" {
		return 1
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return max(h.Sum64()>>1, 2)
}

// Attr describes the directory.
func (d *dir) Attr(_ context.Context, a *fuse.Attr) error {
	a.Inode = inode(d.name)
	a.Mode = os.ModeDir | 0o555
	a.Uid, a.Gid = d.fsys.uid, d.fsys.gid
	a.Valid = forever
	return nil
}

// Lookup finds what stands in the directory under a name.
func (d *dir) Lookup(_ context.Context, req *fuse.LookupRequest, resp *fuse.LookupResponse) (fusefs.Node, error) {
	resp.EntryValid = forever
	d.mu.Lock()
	defer d.mu.Unlock()
	if child := d.children[req.Name]; child != nil {
		return child, nil
	}
	entries, _ := d.fsys.tree.Dir(d.name)
	for _, e := range entries {
		if e.Name != req.Name {
			continue
		}
		var child fusefs.Node = &dir{fsys: d.fsys, name: d.childName(e.Name)}
		if e.Node != nil {
			child = &file{fsys: d.fsys, node: e.Node}
		}
		if d.children == nil {
			d.children = map[string]fusefs.Node{}
		}
		d.children[req.Name] = child
		return child, nil
	}
	return nil, errno(sysctl.ErrUnknown)
}

// ReadDirAll lists the directory in the order of declaration.
func (d *dir) ReadDirAll(context.Context) ([]fuse.Dirent, error) {
	entries, _ := d.fsys.tree.Dir(d.name)
	list := make([]fuse.Dirent, len(entries))
	for i, e := range entries {
		list[i] = fuse.Dirent{Inode: inode(d.childName(e.Name)), Type: fuse.DT_Dir, Name: e.Name}
		if e.Node != nil {
			list[i].Type = fuse.DT_File
		}
	}
	return list, nil
}

func (d *dir) childName(name string) string {
	if d.name == "" {
		return name
	}
	return d.name + "." + name
}

// setattr is what may be set of anything: the times and the size, both without effect.
func setattr(req *fuse.SetattrRequest) error {
	if req.Valid.Mode() || req.Valid.Uid() || req.Valid.Gid() {
		return errFixed
	}
	return nil
}

// Setattr answers chmod, chown and touch.
func (d *dir) Setattr(_ context.Context, req *fuse.SetattrRequest, _ *fuse.SetattrResponse) error {
	return setattr(req)
}

// Getxattr says that there are no extended attributes.
func (d *dir) Getxattr(context.Context, *fuse.GetxattrRequest, *fuse.GetxattrResponse) error {
	return errNoCall
}

// Listxattr says that there are no extended attributes.
func (d *dir) Listxattr(context.Context, *fuse.ListxattrRequest, *fuse.ListxattrResponse) error {
	return errNoCall
}

// Flush has nothing to do.
func (d *dir) Flush(context.Context, *fuse.FlushRequest) error { return errNoCall }

// Remove refuses.
func (d *dir) Remove(context.Context, *fuse.RemoveRequest) error { return errFixed }

// Rename refuses.
func (d *dir) Rename(context.Context, *fuse.RenameRequest, fusefs.Node) error { return errFixed }

// Symlink refuses.
func (d *dir) Symlink(context.Context, *fuse.SymlinkRequest) (fusefs.Node, error) {
	return nil, errFixed
}

// Link refuses.
func (d *dir) Link(context.Context, *fuse.LinkRequest, fusefs.Node) (fusefs.Node, error) {
	return nil, errFixed
}

// Mknod refuses.
func (d *dir) Mknod(context.Context, *fuse.MknodRequest) (fusefs.Node, error) { return nil, errFixed }

// Mkdir refuses.
func (d *dir) Mkdir(context.Context, *fuse.MkdirRequest) (fusefs.Node, error) { return nil, errFixed }

// Create refuses.
func (d *dir) Create(context.Context, *fuse.CreateRequest, *fuse.CreateResponse) (fusefs.Node, fusefs.Handle, error) {
	return nil, nil, errFixed
}
