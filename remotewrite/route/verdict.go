package route

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"mcached/remotewrite/wire"
)

// What comes of a flight. Each answer is judged item by item: what a node took is
// acknowledged, what it lost is told to the sender, and what it did not take goes to
// the next node of the item's order, until all items are settled.

// answered is what a node says about a frame, which it ends.
func (f *flight) answered(fr *frame, a *wire.Answer) {
	f.mu.Lock()
	f.judgeLocked(a, fr)
	f.unlock()
	f.r.putBack(fr)
	f.release()
}

// judgeLocked draws conclusions from the answer to a frame.
func (f *flight) judgeLocked(a *wire.Answer, fr *frame) {
	if a.Status == http.StatusNoContent && len(a.Unknown) == 0 {
		f.answers++
		f.tookAllLocked(fr)
		return
	}
	for _, k := range fr.items {
		f.state[k].out--
	}
	switch {
	case a.Status == http.StatusNoContent:
		f.answers++
		f.learnedLocked(a.Unknown, fr)
	case a.Refused():
		f.retryTextLocked(a.Retry, a.RetryAfter)
		f.redirectLocked(fr)
		f.launchLocked()
	case a.Status == http.StatusTooManyRequests:
		f.retryTextLocked(a.Retry, a.RetryAfter)
		for i, k := range fr.items {
			f.failedLocked(k, fr, i)
		}
	case a.Whole:
		f.answers++
		f.wholes++
		f.whole = *a
		f.reasonsLocked(a.Reasons)
		f.eachLocked(fr, func(k int32, _, item []byte, _ bool) { f.loseLocked(k, f.countLocked(k, item)) })
		f.leadElsewhereLocked(fr)
	default:
		f.answers++
		f.reasonsLocked(a.Reasons)
		f.lossesLocked(a.Losses, fr)
		f.leadElsewhereLocked(fr)
	}
	f.settleLocked(fr.items)
}

// learnedLocked notes that a node has the items of a frame but for those, at least one, that
// it does not know by their prints, which it is sent with their labels. Unknown are their places.
func (f *flight) learnedLocked(unknown []int, fr *frame) {
	if fr.printed {
		f.boxes.by[fr.node].knows.answered(len(unknown), len(fr.items))
	}
	f.r.counters.unknown.Add(uint64(len(unknown)))
	i := 0
	f.eachLocked(fr, func(k int32, head, item []byte, copy bool) {
		if len(unknown) > 0 && unknown[0] == i {
			unknown = unknown[1:]
			f.state[k].out++
			f.copyTo(fr.node, k, head, item, copy)
		} else {
			f.tookLocked(k, fr, i)
		}
		i++
	})
	f.launchLocked()
}

// tookAllLocked notes that a node has all items of a frame.
func (f *flight) tookAllLocked(fr *frame) {
	if fr.printed {
		f.boxes.by[fr.node].knows.answered(0, len(fr.items))
	}
	for i, k := range fr.items {
		f.state[k].out--
		f.tookLocked(k, fr, i)
		f.settleItemLocked(k)
	}
	f.settledLocked()
}

// countLocked counts what an item holds.
func (f *flight) countLocked(k int32, item []byte) wire.Elements {
	if f.cut.items[k].metadata {
		return wire.Elements{}
	}
	_, i := wire.Tag(item, 0)
	from, to := wire.Bytes(item, i)
	return wire.Count(f.part.Protocol, item[from:to])
}

// lossesLocked notes what was lost of items, and that the rest was not.
func (f *flight) lossesLocked(losses []wire.Loss, fr *frame) {
	series := -1
	for i, k := range fr.items {
		if !f.cut.items[k].metadata {
			series++
			for len(losses) > 0 && losses[0].Series < series {
				losses = losses[1:]
			}
			if len(losses) > 0 && losses[0].Series == series {
				f.loseLocked(k, losses[0].Elements)
				continue
			}
		}
		f.tookLocked(k, fr, i)
	}
}

// tookLocked notes that a node has an item, the i-th of a frame.
func (f *flight) tookLocked(k int32, fr *frame, i int) {
	s := &f.state[k]
	if !fr.repeats.Has(i) {
		s.acks++
	}
	if s.lead == leadAsked && !fr.copies.Has(i) {
		s.lead = leadChosen
	}
}

// failedLocked notes that a node has not taken an item, the i-th of a frame.
func (f *flight) failedLocked(k int32, fr *frame, i int) {
	if fr.repeats.Has(i) { // it has it from before
		return
	}
	if at := slices.Index(f.orderOf(f.cut.items[k].slot), uint16(fr.node)); at >= 0 {
		f.state[k].failed |= 1 << at
	}
}

func (f *flight) loseLocked(k int32, e wire.Elements) {
	f.state[k].judged++
	if f.losses == nil {
		f.losses = make(map[int32]loss)
	}
	if was, ok := f.losses[k]; ok {
		e = wire.Elements{Samples: min(e.Samples, was.Samples), Histograms: min(e.Histograms, was.Histograms), Exemplars: min(e.Exemplars, was.Exemplars)}
	}
	f.losses[k] = loss{e}
}

func (f *flight) reasonsLocked(reasons []string) {
	for _, r := range reasons {
		if len(f.reasons) < maxReasons && !slices.Contains(f.reasons, r) {
			f.reasons = append(f.reasons, r)
		}
	}
}

// retryTextLocked keeps the first reason why something was not taken.
func (f *flight) retryTextLocked(why string, after time.Duration) {
	if f.retry == "" {
		f.retry = why
	}
	f.after = max(f.after, after)
}

// redirectLocked gives the items of a frame that was not taken to others. Their
// frames are then to be launched.
func (f *flight) redirectLocked(fr *frame) {
	for i := range f.suspects { // they may be others by now
		f.suspects[i] = i != f.table.Self() && f.r.o.Cluster.Suspected(f.boxes.by[i].id)
	}
	place := 0 // in fr.items
	f.eachLocked(fr, func(k int32, head, item []byte, copy bool) {
		f.failedLocked(k, fr, place)
		place++
		if !f.redirectItemLocked(k, head, item, copy) && !copy {
			f.chooseLocked(k, head, item, fr.node)
		}
	})
	f.tellPassed(fr.items)
}

// redirectItemLocked gives an item to the next node of its order, if there is one.
func (f *flight) redirectItemLocked(k int32, head, item []byte, copy bool) bool {
	s := &f.state[k]
	order := f.orderOf(f.cut.items[k].slot)
	next := -1
	for i, o := range order {
		if s.tried&(1<<i) != 0 {
			continue
		}
		if !f.suspects[o] {
			next = i
			break
		}
		if next < 0 && int(s.acks)+int(s.out) < f.need {
			next = i // unless there is one that is not suspect
		}
	}
	if next < 0 {
		return false
	}
	s.tried |= 1 << next
	s.out++
	f.r.counters.rerouted.Add(1)
	if node := int(order[next]); f.cut.items[k].known && f.knowing[node] { // it may be from before
		f.printedFrame(node).print(&f.cut, int(k), copy)
	} else {
		f.copyTo(node, k, head, item, copy)
	}
	return true
}

// chooseLocked has a node that was asked to keep a copy of an item forward it,
// but not the one that failed: it is sent it once more, which changes nothing else there.
func (f *flight) chooseLocked(k int32, head, item []byte, failed int) {
	s := &f.state[k]
	if s.lead != leadAsked || s.again == maxAgain {
		return
	}
	for i, o := range f.orderOf(f.cut.items[k].slot) {
		if s.tried&(1<<i) != 0 && !f.suspects[o] && int(o) != failed {
			s.again++
			s.out++
			f.r.counters.rerouted.Add(1)
			f.copyTo(int(o), k, head, item, false)
			fr := f.frames[o]
			fr.repeats.Add(len(fr.items) - 1)
			return
		}
	}
}

// leadElsewhereLocked is for a frame of which the node that was to forward
// items does not want all: who took a copy forwards it.
func (f *flight) leadElsewhereLocked(fr *frame) {
	if !f.r.o.Forwards {
		return
	}
	f.eachLocked(fr, func(k int32, head, item []byte, copy bool) {
		if s := &f.state[k]; !copy && s.acks+s.out > 0 {
			f.chooseLocked(k, head, item, fr.node)
		}
	})
	f.launchLocked()
}

// settleLocked looks which of items are settled.
func (f *flight) settleLocked(items []int32) {
	for _, k := range items {
		f.settleItemLocked(k)
	}
	f.settledLocked()
}

func (f *flight) settleItemLocked(k int32) {
	s := &f.state[k]
	if !s.settled && (int(s.acks) >= f.need && s.lead != leadAsked || s.out == 0) {
		s.settled = true
		f.unsettled--
	}
	if s.settled && s.out == 0 {
		if int(s.acks)+int(s.judged) < f.need && f.retry == "" { // no node failed
			f.retryTextLocked(fmt.Sprintf("the cluster has no more than %d that take writes", s.acks), 0)
		}
		f.endItemLocked(k)
	}
}

// settledLocked is for when items of a frame are.
func (f *flight) settledLocked() {
	f.tellPassed(f.few)
	f.few = f.few[:0]
	if f.unsettled == 0 {
		f.tellLocked()
	}
}

// endItemLocked counts an item that no node has yet to answer for, if it has
// fewer copies than it should. If any node has it the cluster is told.
func (f *flight) endItemLocked(k int32) {
	if s := &f.state[k]; s.acks+s.judged < s.want {
		f.r.counters.fewCopies.Add(1)
		if s.acks > 0 {
			f.few = append(f.few, k)
		}
	}
}

func (f *flight) tellLocked() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// outcome sums up what is known now.
func (f *flight) outcome() wire.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := wire.Answer{Status: http.StatusNoContent, Written: f.cut.sent}
	short := 0
	if f.unsettled > 0 || f.losses != nil || f.retry != "" {
		for k := range f.state {
			s := &f.state[k]
			if int(s.acks)+int(s.judged) < f.need || s.lead == leadAsked && s.judged == 0 {
				short++
			}
		}
	}
	switch {
	case short > 0:
		f.r.counters.unacknowledged.Add(uint64(short))
		a.Status, a.Retry, a.RetryAfter = http.StatusServiceUnavailable, f.retry, max(f.after, f.r.o.RetryAfter)
		if a.Retry == "" {
			a.Retry = "the sender has gone"
		}
		if f.need > 1 {
			a.Retry = fmt.Sprintf("%d series have fewer than %d acknowledgements: %s", short, f.need, a.Retry)
		}
		// Of those that are short no more is claimed than nothing.
		a.Written = wire.Elements{}
		return a
	case f.losses == nil:
		return a
	case f.wholes == f.answers:
		w := f.whole
		w.Written, w.Losses = wire.Elements{}, nil
		return w
	}
	for k, l := range f.losses {
		if f.state[k].acks > 0 { // another node has all of it
			continue
		}
		a.Lost.Add(l.Elements)
		a.Failed += max(1, l.Samples+l.Histograms+l.Exemplars)
	}
	a.Written.Samples -= a.Lost.Samples
	a.Written.Histograms -= a.Lost.Histograms
	a.Written.Exemplars -= a.Lost.Exemplars
	if a.Failed > 0 {
		a.Status, a.Reasons = http.StatusBadRequest, slices.Clone(f.reasons)
	}
	return a
}
