package nfq

// answers collects the verdicts on the packets of one read, in the order of their numbers.
//
// The kernel numbers the packets of a queue 1, 2, 3, ... and hands them over in that order. One answer can stand for all
// packets up to a number; so a run of equal verdicts is one message. A gap in the numbers is packets that we never
// saw or could not read: they get a drop before anything that would let them pass with its run.
type answers struct {
	queue uint16
	out   []byte // messages, ready to be sent

	last    uint32 // number of the newest packet that has a verdict, in out or in the run
	known   bool   // last is valid: false before the first packet
	run     int    // packets in the run that ends with last
	verdict        // of the run
}

// verdict is what becomes of a packet.
type verdict struct {
	pass   bool
	again  bool   // by way of the chain that it waits in
	remark bool   // it goes on with another mark
	mark   uint32 // which one
}

// add notes the verdict on packet id.
func (a *answers) add(id uint32, v verdict) {
	if a.known && id != a.last+1 {
		a.flush()
		a.out = appendVerdict(a.out, a.queue, id-1, verdict{}, true)
	}
	if a.run > 0 && a.verdict != v {
		a.flush()
	}
	a.last, a.known, a.verdict = id, true, v
	a.run++
}

// flush turns the run into a message.
func (a *answers) flush() {
	if a.run > 0 {
		a.out = appendVerdict(a.out, a.queue, a.last, a.verdict, a.run > 1)
		a.run = 0
	}
}

// take returns what is to be sent; it is valid until the next add.
func (a *answers) take() []byte {
	a.flush()
	out := a.out
	a.out = a.out[:0]
	return out
}
