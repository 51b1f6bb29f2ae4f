package fs

import (
	"context"
	"sync"

	"bazil.org/fuse"
	fusefs "bazil.org/fuse/fs"
	"bazil.org/fuse/fuseutil"

	"kipsec/kern/sysctl"
)

// maxWrite is the longest value that may be written, in bytes.
const maxWrite = 4096

// oneRead is what one request of the kernel is sure to carry, in bytes.
const oneRead = 4096

// handle is an open file.
type handle struct {
	file *file

	mu   sync.Mutex
	text []byte         // snapshot that the reads are served from
	read bool           // the beginning of text has been read
	seen uint64         // generation of the node when text was taken
	stop func()         // ends the watch, set once poll(2) wants to be told
	node sysctl.Watcher // nil when the node tells no changes
}

var (
	_ fusefs.HandleReader   = (*handle)(nil)
	_ fusefs.HandleWriter   = (*handle)(nil)
	_ fusefs.HandleFlusher  = (*handle)(nil)
	_ fusefs.HandleReleaser = (*handle)(nil)
	_ fusefs.HandlePoller   = (*handle)(nil)
)

func newHandle(f *file, reads bool) *handle {
	h := &handle{file: f}
	h.node, _ = f.node.(sysctl.Watcher)
	if h.node != nil {
		h.seen = h.node.Generation()
	}
	if reads {
		h.takeLocked()
	}
	return h
}

// takeLocked takes a snapshot. h.mu is held, or h is new.
func (h *handle) takeLocked() {
	if h.node != nil {
		h.seen = h.node.Generation() // before the text: a change between the two is told once more, not lost
	}
	h.text, h.read = []byte(h.file.node.Text()), false
}

// Read serves the snapshot. To read from the beginning again, as a monitor does with pread(2), is to take a new one. A text that
// comes in several requests must be of one moment, and the requests of one read(2) arrive in any order: a long one is
// therefore new only from the second time on.
func (h *handle) Read(_ context.Context, req *fuse.ReadRequest, resp *fuse.ReadResponse) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if req.Offset == 0 {
		if h.read || len(h.text) <= oneRead {
			h.takeLocked()
		}
		h.read = true
	}
	fuseutil.HandleRead(req, resp, h.text)
	return nil
}

// Write stores a value. Each write is a whole one, the offset does not matter.
func (h *handle) Write(_ context.Context, req *fuse.WriteRequest, resp *fuse.WriteResponse) error {
	if len(req.Data) > maxWrite {
		return errTooBig
	}
	if err := h.file.node.Set(string(req.Data)); err != nil {
		return errno(err)
	}
	resp.Size = len(req.Data)
	return nil
}

// Flush has nothing to do.
func (h *handle) Flush(context.Context, *fuse.FlushRequest) error { return errNoCall }

// Release ends the watch, if there is one.
func (h *handle) Release(context.Context, *fuse.ReleaseRequest) error {
	h.mu.Lock()
	stop := h.stop
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
	return nil
}
