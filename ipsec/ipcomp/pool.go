package ipcomp

import "runtime"

// pool holds things that are dear to make: at most as many as goroutines can run at once, since more would only wait for
// a processor. They are made when needed and kept.
type pool[T any] struct {
	free   chan *T
	quota  chan struct{} // a token for each that may still be made
	create func() *T
}

func newPool[T any](create func() *T) *pool[T] {
	n := runtime.GOMAXPROCS(0)
	p := &pool[T]{free: make(chan *T, n), quota: make(chan struct{}, n), create: create}
	for range n {
		p.quota <- struct{}{}
	}
	return p
}

// get returns one for the caller alone, if need be when another caller gives his back.
func (p *pool[T]) get() *T {
	select {
	case t := <-p.free:
		return t
	default:
	}
	select {
	case t := <-p.free:
		return t
	case <-p.quota:
		return p.create()
	}
}

// put gives back what get returned.
func (p *pool[T]) put(t *T) { p.free <- t }
