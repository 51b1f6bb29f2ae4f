package nft

import "sync"

// ports knows the netlink ports of the open connections of this process. News of a change tell the port from which it came.
// Connections in several network namespaces may have the same.
var ports = openPorts{count: make(map[uint32]int)}

type openPorts struct {
	mu    sync.Mutex
	count map[uint32]int // connections by port
}

func (p *openPorts) add(port uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count[port]++
}

func (p *openPorts) remove(port uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[port]--; p.count[port] <= 0 {
		delete(p.count, port)
	}
}

func (p *openPorts) has(port uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[port] > 0
}
