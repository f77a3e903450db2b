package ingest

import (
	"syscall"

	"mcached/kvcache"
)

// A gathering does for connections without a pipeline what a bundle does for
// one with: requests that are ready in a loop at the same time are read first,
// then looked up together, and then answered. Only one GET or plain SET that
// came in one short read is gathered, and only from connections of which the
// last one was like that; for whatever else it turns out to be, the connection
// has a turn of its own.
type gathering struct {
	n      int
	db     int // that all of them have selected
	conns  [gatherMax]*conn
	kinds  [gatherMax]bundleKind
	keys   [gatherMax][]byte // views of in
	values [gatherMax][]byte
	in     [gatherMax][smallBytes]byte
	bytes  [gatherMax]int // of in

	// asked are the requests of one kind, their numbers in the arrays above.
	asked     [gatherMax]int
	askedKeys [gatherMax][]byte
	askedVals [gatherMax][]byte

	out  []byte // the answers of asked
	ends [gatherMax]int
}

const (
	// gatherMax bounds the requests that are read before the first is answered.
	gatherMax = 32
	// smallBytes bounds a request that is gathered.
	smallBytes = 512
)

// gather serves the next ready connections as far as they are small.
func (l *loop) gather() {
	g := l.gathering
	g.n = 0
	in, out := 0, 0
	g.db = l.ready[l.at].db
	busy := l.srv.enters(&l.gate) // what is found to belong here is run before that can change
	for g.n < gatherMax && l.at < l.round && l.ready[l.at].small && l.ready[l.at].db == g.db {
		c := l.ready[l.at]
		l.ready[l.at] = nil
		l.at++
		in += l.readSmall(c)
	}
	began, apart := l.srv.nanos(), 0
	awake := l.srv.pulse.runs(began)
	for kind := bundleGet; kind <= bundleSet; kind++ {
		n := g.ask(kind)
		for done := 0; done < n; {
			to := n
			switch {
			case !awake:
				to = done
			case busy == nil:
				to = l.answer(kind, done, n)
			default:
				l.answerBusy(kind, n)
			}
			if to == done {
				l.takesTurn(done)
				apart++
				done++
				continue
			}
			began = l.srv.endedGathered(g, kind, done, to, began)
			out += l.sendSmall(done, to)
			done = to
		}
	}
	if busy == nil {
		l.gate.RUnlock()
	}
	k := &l.srv.counters
	k.commands.Add(uint64(g.n - apart))
	k.bytesIn.Add(uint64(in))
	k.bytesOut.Add(uint64(out))
}

// readSmall reads what a connection has, and gathers it if it is one request.
func (l *loop) readSmall(c *conn) (bytes int) {
	g := l.gathering
	c.queued = false
	if c.killed.Load() {
		c.finish()
		return 0
	}
	b := g.in[g.n][:]
	n, errno := recv(c.fd, b)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		if c.readable = errno == syscall.EINTR; c.readable {
			l.queue(c)
		}
		return 0
	case errno != 0 || n == 0:
		c.finish()
		return 0
	}
	c.readable = n == len(b) || c.hung
	c.active.Store(l.srv.tick.Load())
	used, args, need, err := c.framer.Next(b[:n], c.limits)
	if err == nil && used == n && len(args) > 0 {
		if kind := c.bundleOf(args); kind == bundleGet || kind == bundleSet {
			g.conns[g.n], g.kinds[g.n], g.keys[g.n] = c, kind, args[1]
			if kind == bundleSet {
				g.values[g.n] = args[2]
			}
			g.bytes[g.n] = n
			g.n++
			return n
		}
	}
	// Something else. The framer finds it where it is told to look, from the
	// start or from where it has got to.
	c.small = false
	c.takeInput()
	c.end = copy(c.in, b[:n])
	c.more, c.need = true, need
	if err != nil {
		c.framer.Reset()
	}
	l.queue(c)
	return n
}

// ask lists the requests of one kind.
func (g *gathering) ask(kind bundleKind) (n int) {
	for i := range g.n {
		if g.kinds[i] == kind {
			g.asked[n], g.askedKeys[n], g.askedVals[n] = i, g.keys[i], g.values[i]
			n++
		}
	}
	return n
}

// takesTurn has the connection of a request that was gathered run it in a turn of
// its own: its value is a large one.
func (l *loop) takesTurn(i int) {
	g := l.gathering
	i = g.asked[i]
	c := g.conns[i]
	c.small = false
	c.takeInput()
	c.end = copy(c.in, g.in[i][:g.bytes[i]])
	c.more, c.need = true, 0
	l.queue(c)
}

// answer runs what was asked from the from-th request on, and collects the
// answers. It returns how far it came before n, which is so far that the
// answers are no more than the cache gives at a time; not at all if the first
// is for a value that is kept in parts.
func (l *loop) answer(kind bundleKind, from, n int) (to int) {
	g, blobs := l.gathering, l.srv.o.Blobs.At(l.gathering.db)
	g.out = g.out[:0]
	if kind == bundleGet {
		to = from + blobs.GetMany(g.askedKeys[from:n], func(i int, v []byte, kind kvcache.Kind, ok bool) {
			kind, ok = l.srv.typed(g.db, g.askedKeys[from+i], kind, ok)
			c := g.begin(from+i, bundleGet)
			at := len(c.B)
			if c.answerGet(v, kind, ok); ok && kind != kvcache.String {
				c.countErrorOf(bundleGet, c.B[at:])
				c.count()
			}
			g.end(from+i, c)
		})
		return to
	}
	stored, err := blobs.PutMany(g.askedKeys[from:n], g.askedVals[from:n])
	l.srv.displace(g.db, g.askedKeys[from:from+stored])
	l.srv.wroteKeys(g.db, g.askedKeys[from:n])
	set := func(i int, err error) {
		c := g.begin(i, bundleSet)
		at := len(c.B)
		if c.answerSet(err); err != nil {
			c.countErrorOf(bundleSet, c.B[at:])
			c.count()
		}
		g.end(i, c)
	}
	for to = from; to < from+stored; to++ {
		set(to, nil)
	}
	if err != nil {
		set(to, err)
		to++
	}
	return to
}

// answerBusy tells all that were asked that a script keeps them waiting.
func (l *loop) answerBusy(kind bundleKind, n int) {
	g := l.gathering
	g.out = g.out[:0]
	for i := range n {
		c := g.begin(i, kind)
		c.Fail(errBusy)
		g.end(i, c)
	}
	l.srv.counters.failed.Add(uint64(n))
}

// begin returns the client of a request, ready to be answered.
func (g *gathering) begin(i int, kind bundleKind) *conn {
	c := g.conns[g.asked[i]]
	c.ran(c.srv.commands.byKind[kind])
	c.B = g.out
	return c
}

func (g *gathering) end(i int, c *conn) {
	g.out, c.B = c.B, nil
	g.ends[i] = len(g.out)
}

// sendSmall sends the answers. What a socket does not take, and that the
// connection is to end, is dealt with in a turn of the connection.
func (l *loop) sendSmall(first, to int) (bytes int) {
	g := l.gathering
	from := 0
	for i := first; i < to; i++ {
		c, b := g.conns[g.asked[i]], g.out[from:g.ends[i]]
		from = g.ends[i]
		sent, errno := sendTo(c.fd, b)
		switch {
		case errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR:
			c.finish()
			continue
		case max(sent, 0) < len(b):
			c.small = false
			c.takeOutput()
			c.B = append(c.B, b[max(sent, 0):]...)
			l.queue(c)
		case c.shutting.Load():
			c.finish()
			continue
		case c.readable:
			l.queue(c)
		}
		bytes += max(sent, 0)
	}
	if cap(g.out) > 4*l.srv.o.MaxOutputBytes {
		g.out = nil
	}
	return bytes
}
