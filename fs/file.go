package fs

import (
	"context"

	"bazil.org/fuse"
	fusefs "bazil.org/fuse/fs"

	"kipsec/kern/sysctl"
)

// file is a leaf of the tree.
type file struct {
	fsys *fileSystem
	node sysctl.Node
}

var (
	_ fusefs.Node            = (*file)(nil)
	_ fusefs.NodeOpener      = (*file)(nil)
	_ fusefs.NodeSetattrer   = (*file)(nil)
	_ fusefs.NodeGetxattrer  = (*file)(nil)
	_ fusefs.NodeListxattrer = (*file)(nil)
	_ fusefs.NodeFsyncer     = (*file)(nil)
)

// Attr describes the file. The size is that of the text at this moment, and the kernel must not keep it. For a binary value,
// which may be long to compute, it is 0, as for files of /proc.
func (f *file) Attr(_ context.Context, a *fuse.Attr) error {
	a.Inode = inode(f.node.Name())
	a.Mode = f.node.Mode()
	if !sysctl.IsBinary(f.node) {
		a.Size = uint64(len(f.node.Text()))
	}
	a.Blocks = (a.Size + 511) / 512
	a.Uid, a.Gid = f.fsys.uid, f.fsys.gid
	a.Valid = 0
	return nil
}

// Open makes a handle. The kernel has checked the mode, but lets root pass.
func (f *file) Open(_ context.Context, req *fuse.OpenRequest, resp *fuse.OpenResponse) (fusefs.Handle, error) {
	mode := f.node.Mode()
	if !req.Flags.IsReadOnly() && mode&0o200 == 0 {
		return nil, errno(sysctl.ErrReadOnly)
	}
	resp.Flags |= fuse.OpenDirectIO
	return newHandle(f, !req.Flags.IsWriteOnly()), nil
}

// Setattr answers chmod, chown, touch and truncate. O_TRUNC arrives here too, and must not clear the value.
func (f *file) Setattr(_ context.Context, req *fuse.SetattrRequest, _ *fuse.SetattrResponse) error {
	return setattr(req)
}

// Getxattr says that there are no extended attributes.
func (f *file) Getxattr(context.Context, *fuse.GetxattrRequest, *fuse.GetxattrResponse) error {
	return errNoCall
}

// Listxattr says that there are no extended attributes.
func (f *file) Listxattr(context.Context, *fuse.ListxattrRequest, *fuse.ListxattrResponse) error {
	return errNoCall
}

// Fsync has nothing to do: the kernel takes this answer for success.
func (f *file) Fsync(context.Context, *fuse.FsyncRequest) error { return errNoCall }
