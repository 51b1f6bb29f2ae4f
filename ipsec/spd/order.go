package spd

import (
	"container/heap"
	"slices"
)

// order knows the first of a set of policies. Those that are gone leave it when they come to the front, or when they
// are the most.
type order struct {
	heap policyHeap
	gone int // of those in heap
}

func (o *order) add(p *Policy) { heap.Push(&o.heap, p) }

// lost is called when one of the policies has gone.
func (o *order) lost() {
	o.gone++
	for len(o.heap) > 0 && o.heap[0].gone {
		heap.Pop(&o.heap)
		o.gone--
	}
	if o.gone > len(o.heap)/2 {
		o.heap = slices.DeleteFunc(o.heap, func(p *Policy) bool { return p.gone })
		o.gone = 0
		heap.Init(&o.heap)
	}
}

// first returns the first policy, nil when there is none.
func (o *order) first() *Policy {
	if len(o.heap) == 0 {
		return nil
	}
	return o.heap[0]
}

func (o *order) len() int { return len(o.heap) - o.gone }

// policyHeap is a heap.Interface: policies in their order.
type policyHeap []*Policy

func (h policyHeap) Len() int           { return len(h) }
func (h policyHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h policyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *policyHeap) Push(x any) { *h = append(*h, x.(*Policy)) }

// Pop is for container/heap.
func (h *policyHeap) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return p
}
