package nfq

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

// packetMessage builds a message as the kernel sends it.
func packetMessage(id uint32, payload []byte, attrs ...func([]byte) []byte) []byte {
	b := appendMessage(nil, msgPacket, 0, 7)
	b[sizeofNlmsg] = unix.AF_INET
	b = appendAttr(b, attrPacketHeader, append(big.AppendUint32(nil, id), 8, 0, unix.NF_INET_LOCAL_IN)...)
	for _, attr := range attrs {
		b = attr(b)
	}
	b = appendAttr(b, attrPayload, payload...)
	finish(b, 0)
	return b
}

func number(kind uint16, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { return appendAttr(b, kind, big.AppendUint32(nil, v)...) }
}

func TestParse(t *testing.T) {
	b := packetMessage(5, []byte("abcde"), number(attrMark, 0x12345678), number(attrInDev, 3), number(attrOutDev, 4), number(attrCapLen, 1500))
	kind, body, rest, ok := nextMessage(b)
	if !ok || kind != msgPacket || len(rest) != 0 {
		t.Fatalf("message: %v, type %#x, %d bytes left", ok, kind, len(rest))
	}
	var p packet
	if !p.parse(body) {
		t.Fatal("not parsed")
	}
	want := Info{Family: unix.AF_INET, Hook: unix.NF_INET_LOCAL_IN, InDev: 3, OutDev: 4, Mark: 0x12345678, Len: 1500, Truncated: true}
	if p.id != 5 || string(p.payload) != "abcde" || p.info != want {
		t.Errorf("id %d, payload %q, info %+v, want %+v", p.id, p.payload, p.info, want)
	}
	_, body, _, _ = nextMessage(packetMessage(6, []byte("abc")))
	if !p.parse(body) || p.info.Len != 3 || p.info.Truncated || p.info.Mark != 0 {
		t.Errorf("second packet: %+v", p.info)
	}
}

func TestParseRefusesWhatDoesNotFit(t *testing.T) {
	_, body, _, _ := nextMessage(packetMessage(9, []byte("abc"), number(attrMark, 1)))
	var p packet
	for n := range len(body) - 1 { // the last byte is padding
		if p.parse(body[:n]) {
			t.Errorf("cut to %d of %d bytes it parses", n, len(body))
		}
	}
	short := appendMessage(nil, msgPacket, 0, 7)
	short = appendAttr(short, attrPacketHeader, 0, 0, 0, 9, 8, 0, 1)
	short = appendAttr(short, attrMark, 1, 2)
	if p.parse(short[sizeofNlmsg:]) || !p.hasID || p.id != 9 {
		t.Errorf("short mark: parsed, or id %d got lost", p.id)
	}
	if p.parse(nil) || p.hasID {
		t.Error("nothing parses as a packet")
	}
	for _, n := range []uint32{0, 15, 17, math.MaxUint32} {
		b := make([]byte, 16)
		native.PutUint32(b, n)
		if _, _, _, ok := nextMessage(b); ok {
			t.Errorf("a message of length %d in 16 bytes", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packetMessage(1, []byte("packet"), number(attrCapLen, 99)))
	f.Add(append(packetMessage(1, nil), packetMessage(2, make([]byte, 60))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for {
			_, body, rest, ok := nextMessage(b)
			if !ok {
				return
			}
			var p packet
			if p.parse(body) && (!p.hasID || p.info.Len < len(p.payload)) {
				t.Fatalf("parsed %+v", p)
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

// answer is a verdict message, read back.
type answer struct {
	id    uint32
	pass  bool
	batch bool
	mark  uint32 // 0: it says none
}

func readAnswers(t *testing.T, b []byte) []answer {
	t.Helper()
	var all []answer
	for len(b) > 0 {
		kind, body, rest, ok := nextMessage(b)
		if !ok || len(body) < sizeofVerdict-sizeofNlmsg || big.Uint16(body[2:]) != 7 {
			t.Fatalf("bad answer % x", b)
		}
		var mark uint32
		if more := body[sizeofVerdict-sizeofNlmsg:]; len(more) == sizeofRemark && native.Uint16(more) == 8 && native.Uint16(more[2:]) == attrMark {
			mark = big.Uint32(more[4:])
		} else if len(more) != 0 {
			t.Fatalf("bad answer % x", body)
		}
		verdict := big.Uint32(body[8:])
		if verdict > 1 || native.Uint16(body[6:]) != attrVerdict {
			t.Fatalf("bad verdict % x", body)
		}
		all = append(all, answer{big.Uint32(body[12:]), verdict == verdictAccept, kind == msgVerdictBatch, mark})
		b = rest
	}
	return all
}

func TestAnswers(t *testing.T) {
	type given struct {
		id uint32
		v  verdict
	}
	pass, drop := verdict{pass: true}, verdict{}
	marked := func(m uint32) verdict { return verdict{pass: true, remark: true, mark: m} }
	for _, c := range []struct {
		name string
		in   []given
		want []answer
	}{
		{"none", nil, nil},
		{"one", []given{{1, pass}}, []answer{{1, true, false, 0}}},
		{"a run", []given{{1, pass}, {2, pass}, {3, pass}}, []answer{{3, true, true, 0}}},
		{"turns", []given{{1, pass}, {2, drop}, {3, drop}, {4, pass}}, []answer{{1, true, false, 0}, {3, false, true, 0}, {4, true, false, 0}}},
		{"a gap", []given{{1, pass}, {4, pass}, {5, pass}}, []answer{{1, true, false, 0}, {3, false, true, 0}, {5, true, true, 0}}},
		{"around zero", []given{{math.MaxUint32, pass}, {0, pass}}, []answer{{0, true, true, 0}}},
		{"a gap around zero", []given{{math.MaxUint32, pass}, {1, pass}}, []answer{{math.MaxUint32, true, false, 0}, {0, false, true, 0}, {1, true, false, 0}}},
		{"marks", []given{{1, marked(8)}, {2, marked(8)}, {3, marked(9)}, {4, pass}, {5, drop}},
			[]answer{{2, true, true, 8}, {3, true, false, 9}, {4, true, false, 0}, {5, false, false, 0}}},
		{"a gap before a mark", []given{{1, pass}, {3, marked(8)}}, []answer{{1, true, false, 0}, {2, false, true, 0}, {3, true, false, 8}}},
	} {
		a := answers{queue: 7}
		for _, g := range c.in {
			a.add(g.id, g.v)
		}
		got := readAnswers(t, a.take())
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
		}
		if len(a.take()) != 0 {
			t.Errorf("%s: answered twice", c.name)
		}
	}
}

// A gap between two reads must not pass with the next run either.
func TestAnswersRememberTheLastRead(t *testing.T) {
	a := answers{queue: 7}
	pass := verdict{pass: true}
	a.add(1, pass)
	a.take()
	a.add(3, pass)
	a.add(4, pass)
	got := readAnswers(t, a.take())
	if len(got) != 2 || got[0] != (answer{2, false, true, 0}) || got[1] != (answer{4, true, true, 0}) {
		t.Errorf("%+v", got)
	}
}

// loaded returns a queue without a socket, with a read of n messages in its buffers.
func loaded(n int) *Queue {
	q := &Queue{config: Config{}.withDefaults()}
	if err := q.prepare(); err != nil {
		panic(err)
	}
	for i := range n {
		copy(q.buffers[i*q.size:(i+1)*q.size], packetMessage(uint32(i+1), make([]byte, 400), number(attrMark, 1), number(attrInDev, 2)))
		q.headers[i].length = uint32(len(packetMessage(1, make([]byte, 400), number(attrMark, 1), number(attrInDev, 2))))
	}
	return q
}

func TestProcessAllocatesNothing(t *testing.T) {
	q := loaded(batch)
	asked := 0
	handle := func(b []byte, info *Info) bool { asked++; return len(b) == 400 && info.InDev == 2 && asked%3 != 0 }
	if n := testing.AllocsPerRun(100, func() {
		q.answers.known = false
		q.process(batch, handle)
		q.answers.take()
	}); n != 0 {
		t.Errorf("%v allocations for a read of %d packets", n, batch)
	}
	if asked != 101*batch {
		t.Errorf("asked %d times", asked)
	}
}

func TestTruncatedMessageIsNotAnswered(t *testing.T) {
	q := loaded(3)
	q.headers[1].length -= 100 // as if the buffer had been too small
	q.headers[1].header.Flags = unix.MSG_TRUNC
	q.answers.queue = 7
	q.process(3, func([]byte, *Info) bool { return true })
	got := readAnswers(t, q.answers.take())
	want := []answer{{1, true, false, 0}, {2, false, true, 0}, {3, true, false, 0}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || q.Malformed() != 1 {
		t.Errorf("%+v, want %+v; %d malformed", got, want, q.Malformed())
	}
}

func BenchmarkProcess(b *testing.B) {
	q := loaded(batch)
	b.ReportAllocs()
	for b.Loop() {
		q.answers.known = false
		q.process(batch, func([]byte, *Info) bool { return true })
		q.answers.take()
	}
}
