package ingest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mcached/ingest/resp"
	"mcached/kvcache"
)

// outgoing is a session as its origin has it.
type outgoing struct {
	k             *copies
	id            string
	serial        uint64
	role          heirRole
	heir          ClusterNode
	units         unitSet
	data          *peer
	void          chan struct{} // closed when it is
	taken, failed atomic.Bool
	whole         atomic.Bool  // state is sessionComplete
	known         atomic.Bool  // and a witness, who can confirm it, has said that it knows
	took          atomic.Int64 // ns until the heir answers, on average

	mu        sync.Mutex
	state     sessionState
	number    uint64        // of the last message
	witnesses []ClusterNode // that may have been told that it is complete
	buf       []byte        // for push
}

type sessionState uint8

const (
	sessionOpening sessionState = iota // the heir removes what it had
	sessionFilling
	sessionComplete
	sessionEnding // it was complete, and may still be trusted by others
	sessionVoid
)

// run fills the session and goes on until it is void.
func (o *outgoing) run() {
	defer o.k.srv.wg.Done()
	if err := o.fill(); err != nil {
		o.end(err)
	}
	select {
	case <-o.void:
		o.k.ended(o, o.failed.Load())
	case <-o.k.srv.stop:
	}
}

// in is whether the session is in a state.
func (o *outgoing) in(s sessionState) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state == s
}

// becomes changes the state, if it was another one.
func (o *outgoing) becomes(from, to sessionState) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != from {
		return false
	}
	o.state = to
	return true
}

// fill sends what there is, until the session is complete.
func (o *outgoing) fill() error {
	if err := o.ask(o.data, beginAnswer, "begin", o.units.encode()); err != nil {
		return err
	}
	if !o.becomes(sessionOpening, sessionFilling) {
		return errPassedOver
	}
	var w changes
	cache := o.k.srv.o.Blobs.At(0)
	for cursor := uint64(0); ; {
		w.reset()
		cursor = cache.Scan(cursor, copyBatchKeys, func(key []byte, _ kvcache.Entry) {
			if o.units.has(o.k.unitOf(key)) {
				w.keys = append(w.keys, key...)
				w.ends = append(w.ends, len(w.keys))
			}
		})
		var keys [][]byte
		w.each(func(_ int, key []byte) { keys = append(keys, key) })
		if err := o.fillWith(keys); err != nil {
			return err
		}
		if cursor == 0 {
			return o.complete()
		}
	}
}

// fillWith sends keys, a message at a time, so that those of clients need not wait for long.
func (o *outgoing) fillWith(keys [][]byte) error {
	for {
		if !o.in(sessionFilling) {
			return errPassedOver
		}
		if len(keys) == 0 {
			return nil
		}
		began := time.Now()
		call, n, size, err := o.pushSome(keys)
		if err == nil && call != nil {
			err = o.wait(call)
		}
		if err != nil {
			return err
		}
		keys = keys[n:]
		select {
		case <-time.After(time.Duration(size)*time.Second/fillBytesPerS - time.Since(began)):
		case <-o.k.srv.stop:
			return errPassedOver
		}
	}
}

// complete tells the heir that it has all, and then the witnesses.
func (o *outgoing) complete() error {
	o.mu.Lock()
	call, err := o.sendLocked("done")
	o.mu.Unlock()
	if err == nil {
		err = o.wait(call)
	}
	if err != nil {
		return err
	}
	if !o.becomes(sessionFilling, sessionComplete) {
		return errPassedOver
	}
	o.whole.Store(true)
	o.inform(o.k.srv.view())
	return nil
}

// awaited says whether the session is complete and its units are the heir's by now,
// which has yet to take them: it needs the session for that.
func (o *outgoing) awaited(v *ClusterView) bool {
	if !o.role.promised || v == nil || !o.in(sessionComplete) {
		return false
	}
	for u := range copyUnits {
		slot := uint16(u * unitSlots)
		if !o.units.has(u) {
			continue
		}
		if node := v.servedBy(slot); node < 0 || v.Nodes[node].ID != o.heir.ID {
			return false
		}
	}
	return true
}

// inform tells members that the session is complete, if it is, and they do not know.
func (o *outgoing) inform(v *ClusterView) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != sessionComplete {
		return
	}
	var more []ClusterNode
	for i, n := range v.Nodes {
		if i != v.Self && n.ID != o.heir.ID && !slices.Contains(o.witnesses, n) {
			more = append(more, n)
		}
	}
	if len(more) == 0 || !o.k.srv.hold() {
		return
	}
	o.witnesses = append(slices.Clone(o.witnesses), more...)
	go o.bearWitness(more)
}

// bearWitness tells witnesses that the session is complete, those that do not answer again
// and again, while it is and they are there.
func (o *outgoing) bearWitness(witnesses []ClusterNode) {
	defer o.k.srv.wg.Done()
	for left := witnesses; ; {
		told := o.tellAll(left, "witness", o.units.encode())
		if told.know && !o.known.Swap(true) && o.role.promised {
			_ = o.ask(o.k.srv.peerFor(o.heir.address(), peerControl), o.k.answer, "known") // it takes its units without that after a while
		}
		if left, _ = o.present(told.left); len(left) == 0 || !o.in(sessionComplete) {
			return
		}
		select {
		case <-time.After(copyAgain):
		case <-o.void:
			return
		case <-o.k.srv.stop:
			return
		}
	}
}

// sendLocked sends the next message of the session, without keys.
func (o *outgoing) sendLocked(what string) (*peerCall, error) {
	call, err := o.data.send([][]byte{[]byte("MC.COPY"), []byte(what), []byte(o.id), strconv.AppendUint(nil, o.number+1, 10)})
	if err == nil {
		o.number++
	}
	return call, err
}

// push sends what keys are now. Each of calls is to be waited for.
func (o *outgoing) push(keys [][]byte) (calls []*peerCall, err error) {
	for len(keys) > 0 {
		call, n, _, err := o.pushSome(keys)
		if call == nil {
			return calls, err
		}
		calls, keys = append(calls, call), keys[n:]
	}
	return calls, nil
}

// pushSome is push for the first n of keys, as many as a message has: size bytes. It
// returns no call if nobody is to have it.
func (o *outgoing) pushSome(keys [][]byte) (call *peerCall, n, size int, err error) {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		switch o.state {
		case sessionOpening, sessionVoid: // fill will find it, or nobody is to have it
			o.mu.Unlock()
			if o.taken.Load() {
				err = errTakenOver
			}
			return nil, 0, 0, err
		case sessionEnding:
			o.mu.Unlock()
			return nil, 0, 0, errPassedOver
		}
		call, err = o.data.sendEncoded(func(out []byte) []byte {
			n = o.encodeLocked(keys)
			size = len(o.buf)
			out = append(out, '*')
			out = strconv.AppendInt(out, int64(4+3*n), 10)
			out = append(out, "\r\n$7\r\nMC.COPY\r\n$3\r\nset\r\n"...)
			out = resp.AppendBulk(out, []byte(o.id))
			out = resp.AppendBulk(out, strconv.AppendUint(nil, o.number+1, 10))
			return append(out, o.buf...)
		})
		if err == nil {
			o.number++
		}
		o.mu.Unlock()
		if err == nil {
			o.k.count.sent.Add(uint64(n))
		}
		if err != errPeerBusy || time.Since(began) >= o.patience() {
			return call, n, size, err
		}
	}
}

// encodeLocked puts what keys are into buf, for as many as a message has.
func (o *outgoing) encodeLocked(keys [][]byte) (n int) {
	if cap(o.buf) > 4*copyBatchBytes {
		o.buf = nil
	}
	o.buf = o.buf[:0]
	cache := o.k.srv.o.Blobs.At(0)
	for n < len(keys) && n < copyBatchKeys && len(o.buf) < copyBatchBytes {
		key := keys[n]
		o.buf = resp.AppendBulk(o.buf, key)
		at, there := len(o.buf), false
		err := cache.Update(key, func(e kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
			o.buf = o.buf[:at]
			if there = ok && len(e.Value) <= copyValueBytes; there {
				var meta [copyMetaBytes]byte
				meta[0] = byte(e.Kind)
				binary.LittleEndian.PutUint64(meta[1:], uint64(e.ExpiresMs))
				o.buf = resp.AppendBulk(resp.AppendBulk(o.buf, meta[:]), e.Value)
			}
			return e, kvcache.Keep
		})
		if err != nil || !there {
			o.buf = append(o.buf[:at], "$0\r\n\r\n$0\r\n\r\n"...)
		}
		n++
	}
	return n
}

// wait waits until the heir has a message.
func (o *outgoing) wait(call *peerCall) error {
	began := time.Now()
	timer := time.NewTimer(o.patience())
	defer timer.Stop()
	select {
	case <-call.done:
		o.answered(time.Since(began))
	case <-timer.C:
		o.data.end(errPassedOver)
		<-call.done
	}
	return outcome(call)
}

// answered notes how long the heir took. Of two calls at once one may be lost.
func (o *outgoing) answered(took time.Duration) {
	was := o.took.Load()
	o.took.Store(was + (int64(took)-was)/heirSmooth)
}

// patience is how long to wait for the heir.
func (o *outgoing) patience() time.Duration {
	return max(o.k.answer, min(heirTimes*time.Duration(o.took.Load()), heirMost))
}

func outcome(call *peerCall) error {
	switch {
	case call.err != nil:
		return call.err
	case bytes.HasPrefix(call.reply, []byte("-TAKEN")):
		return errTakenOver
	case bytes.HasPrefix(call.reply, []byte("-GONE")):
		return errNoSuchSession
	case bytes.HasPrefix(call.reply, []byte("-"+errNoCopies)), bytes.HasPrefix(call.reply, []byte("-ERR unknown command")):
		return errKeepsNone
	case bytes.HasPrefix(call.reply, []byte("-")):
		return errPassedOver
	}
	return nil
}

// ask tells a member something about the session and waits for the answer.
func (o *outgoing) ask(p *peer, most time.Duration, what string, more ...[]byte) error {
	return o.k.ask(p, most, append([][]byte{[]byte("MC.COPY"), []byte(what), []byte(o.id)}, more...), nil)
}

// ask sends a command and waits for its answer, for so long at the most, or until
// the server ends.
func (k *copies) ask(p *peer, most time.Duration, args [][]byte, reply *[]byte) error {
	call, err := p.send(args)
	if err != nil {
		return err
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-call.done:
	case <-timer.C:
		p.end(errPassedOver)
		<-call.done
	case <-k.srv.stop:
		return errPassedOver
	}
	if err = outcome(call); err == nil && reply != nil {
		*reply = call.reply
	}
	return err
}

// told is what nodes said that were told something about a session.
type told struct {
	left  []ClusterNode // of those that did not say that they know
	know  bool          // one that keeps copies said so
	taken bool          // one said that the session was taken
}

// tellAll tells nodes something about the session, all at once.
func (o *outgoing) tellAll(nodes []ClusterNode, what string, more ...[]byte) (t told) {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			errs[i] = o.ask(o.k.srv.peerFor(n.address(), peerControl), o.k.answer, what, more...)
		})
	}
	wg.Wait()
	for i, err := range errs {
		switch err {
		case nil:
			t.know = true
		case errKeepsNone: // it confirms nothing
		case errTakenOver:
			t.taken = true
		default:
			t.left = append(t.left, nodes[i])
		}
	}
	return t
}

// end makes the session void, in the background. why is nil if nothing failed.
func (o *outgoing) end(why error) {
	if why == errTakenOver {
		o.lose()
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.state {
	case sessionOpening, sessionFilling:
		o.failed.Store(why != nil)
		o.voidLocked()
	case sessionComplete:
		o.failed.Store(why != nil)
		if why == errNoSuchSession {
			o.voidLocked()
			return
		}
		o.state = sessionEnding
		o.whole.Store(false)
		if !o.k.srv.hold() {
			return // the server ends, and answers nobody
		}
		if why == nil {
			go o.revokeByHeir(o.witnesses)
		} else {
			go o.revokeWithoutHeir(o.witnesses)
		}
	}
}

// revokeByHeir makes a session void that was complete, by the heir's word, or that
// of all witnesses if the heir does not give it.
func (o *outgoing) revokeByHeir(witnesses []ClusterNode) {
	defer o.k.srv.wg.Done()
	if _, there := o.present([]ClusterNode{o.heir}); there {
		if t := o.tellAll([]ClusterNode{o.heir}, "end"); t.taken {
			o.lose()
			return
		} else if len(t.left) == 0 {
			o.voids()
			return
		}
	}
	o.revokeByWitnesses(witnesses)
}

// revokeWithoutHeir makes a session void that was complete, whose heir does not answer.
func (o *outgoing) revokeWithoutHeir(witnesses []ClusterNode) {
	defer o.k.srv.wg.Done()
	o.k.count.passedOver.Add(1)
	o.k.srv.o.Logger.Warn("A member does not answer in time: its copies of keys are void until it has been sent all of them again.", "member", o.heir.address())
	o.revokeByWitnesses(witnesses)
}

// revokeByWitnesses tells all witnesses, those that do not answer again and again,
// and then makes the session void.
func (o *outgoing) revokeByWitnesses(witnesses []ClusterNode) {
	for left, _ := o.present(witnesses); len(left) > 0; left, _ = o.present(left) {
		t := o.tellAll(left, "end")
		if t.taken {
			o.lose()
			return
		}
		if left = t.left; len(left) == 0 {
			break
		}
		select {
		case <-time.After(copyAgain):
		case <-o.k.srv.stop:
			return
		}
	}
	o.voids()
}

// present are those nodes that are still in the cluster.
func (o *outgoing) present(nodes []ClusterNode) (there []ClusterNode, any bool) {
	v := o.k.srv.view()
	for _, n := range nodes {
		for i := range v.Nodes {
			if v.Nodes[i] == n {
				there = append(there, n)
			}
		}
	}
	return there, len(there) > 0
}

func (o *outgoing) voids() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.voidLocked()
}

func (o *outgoing) voidLocked() {
	if o.state != sessionVoid {
		o.state = sessionVoid
		o.whole.Store(false)
		close(o.void)
	}
}

// lose is for a session whose heir has taken its units.
func (o *outgoing) lose() {
	if o.taken.Swap(true) {
		return
	}
	st := &o.k.srv.cluster
	st.mu.Lock()
	mine := o.k.held.and(&o.units)
	for u := range copyUnits {
		if mine.has(u) && o.k.takenAt[u] >= o.serial { // again, since then
			mine[u/64] &^= 1 << (u % 64)
		}
	}
	o.k.yield(&mine, o.heir.ID)
	st.mu.Unlock()
	o.voids()
}

// over ends the session and returns when it is void. It reports false if that is not
// known in time, or its units were taken.
func (o *outgoing) over(why error) bool {
	o.end(why)
	timer := time.NewTimer(voidWait)
	defer timer.Stop()
	select {
	case <-o.void:
		return !o.taken.Load()
	case <-timer.C:
	case <-o.k.srv.stop:
	}
	return false
}
