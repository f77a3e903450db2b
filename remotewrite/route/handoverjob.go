package route

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"time"

	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// handoverJob is what follows from one change.
type handoverJob struct {
	h         *Handover
	ctx       context.Context
	table     Table
	plan      map[uint16][]target
	perSecond int // bytes; 0: no bound
	began     time.Time
	bytes     int          // sent
	sent      int          // samples
	lost      map[int]bool // nodes that were given up
	// completeFrom is from when on series that were sent lack nothing, by slot.
	completeFrom map[uint16]int64
	claimable    func(slot uint16, tell func(e ClaimedEra, from, until int64)) // nil: nothing
	rejected     bool                                                          // a node did not take all
	from, until  int64                                                         // ms: what was sent, and when that began
	bucket       string                                                        // of batches
	batches      map[int]*batch
	batchBytes   int // about how much each has when it is sent
	encoder      send.EncoderV2
}

// batch is what is to be sent to a node. While the node works on one the next is
// gathered, and those of other nodes are sent.
type batch struct {
	send.Copies
	points int
	bytes  int // about

	sent *delivery // the one before, if it was not looked after yet
}

// delivery is a batch on its way.
type delivery struct {
	points, bytes int
	done          chan struct{} // closed when the rest is known
	rejected      bool          // the node has what it has not rejected
	err           error
}

// run sends everything, and returns when all of it has arrived or was given up. It
// reports false if the job is over before.
func (j *handoverJob) run() bool {
	ok := j.gather()
	for node, b := range j.batches {
		ok = j.await(node, b) && ok
	}
	return ok
}

func (j *handoverJob) gather() bool {
	now := time.UnixMilli(j.until)
	oldest := j.until
	for _, targets := range j.plan {
		for _, t := range targets {
			oldest = min(oldest, t.from)
		}
	}
	to := j.until + time.Hour.Milliseconds() // what is a little ahead of the clock is new, too
	for _, age := range append(slices.Clone(ages), j.h.o.Window) {
		from := now.Add(-min(age, j.h.o.Window)).UnixMilli()
		if from >= to || to < oldest {
			continue
		}
		ok := true
		j.h.o.Holdings.Each(from, to, func(slot uint16) bool { return len(j.plan[slot]) > 0 }, func(bucket string, slot uint16, completeFrom int64, s send.Series) bool {
			j.completeFrom[slot] = max(completeFrom, j.completeFrom[slot])
			if len(s.Samples)+len(s.Records) == 0 {
				return ok
			}
			if bucket != j.bucket { // so that only those of one are held at a time
				ok = ok && j.flushAll()
				j.bucket = string([]byte(bucket))
			}
			for _, t := range j.plan[slot] {
				if s, some := since(s, t.from); some {
					ok = ok && j.add(t.node, s)
				}
			}
			return ok
		})
		if !ok || !j.flushAll() {
			return false
		}
		to = from - 1
	}
	return true
}

// since is what of a series has times from from on, and whether there is any.
func since(s send.Series, from int64) (send.Series, bool) {
	i := sort.Search(len(s.Samples), func(i int) bool { return s.Samples[i].T >= from })
	k := sort.Search(len(s.Records), func(k int) bool { return s.Records[k].T >= from })
	s.Starts, s.Samples, s.Records = s.Starts[min(i, len(s.Starts)):], s.Samples[i:], s.Records[k:]
	return s, len(s.Samples)+len(s.Records) > 0
}

// add reports false when the job is over.
func (j *handoverJob) add(node int, s send.Series) bool {
	b := j.batches[node]
	if b == nil {
		b = new(batch)
		j.batches[node] = b
	}
	for _, r := range s.Records {
		b.bytes += len(r.Value)
	}
	for _, l := range s.Labels {
		b.bytes += len(l.Name) + len(l.Value)
	}
	b.Add(s)
	b.points += len(s.Samples) + len(s.Records)
	const sampleBytes = 18
	if b.bytes += sampleBytes * (len(s.Samples) + len(s.Records)); b.bytes < j.batchBytes {
		return true
	}
	return j.flush(node, b)
}

func (j *handoverJob) flushAll() bool {
	for node, b := range j.batches {
		if !j.flush(node, b) {
			return false
		}
	}
	return true
}

// flush sends a batch on its way, when the one before has arrived.
func (j *handoverJob) flush(node int, b *batch) bool {
	if len(b.Series) == 0 {
		return true
	}
	if !j.await(node, b) {
		return false
	}
	body := j.encoder.Append(make([]byte, 0, b.bytes), b.Series) // not one for all: who sends may read on when he was answered
	if j.lost[node] {
		j.h.failed.Add(int64(b.points))
	} else {
		part := wire.Part{Protocol: wire.V2, Bucket: j.bucket, Settled: true, Body: body}
		d := &delivery{points: b.points, bytes: len(body), done: make(chan struct{})}
		b.sent = d
		go func() {
			defer close(d.done)
			d.rejected, d.err = j.deliver(node, part)
		}()
	}
	b.points, b.bytes = 0, 0
	b.Reset()
	return j.pace(len(body))
}

// await waits until the last batch that was sent to a node has arrived or was given up.
func (j *handoverJob) await(node int, b *batch) bool {
	d := b.sent
	if d == nil {
		return true
	}
	b.sent = nil
	<-d.done
	switch {
	case d.err == nil:
		j.rejected = j.rejected || d.rejected
		j.sent += d.points
		j.h.samples.Add(int64(d.points))
		j.h.bytes.Add(int64(d.bytes))
		return true
	case j.ctx.Err() != nil || j.h.r.o.Cluster.Table() != j.table:
		return false
	}
	j.lost[node] = true
	id, _ := j.table.Node(node)
	j.h.r.o.Logger.Warn("A node does not take what it owns now; it gets no more of it.", "node", id, "err", d.err)
	j.h.failed.Add(int64(d.points))
	return true
}

// pace waits until no more was sent than may be.
func (j *handoverJob) pace(n int) bool {
	j.bytes += n
	if j.perSecond == 0 {
		return j.ctx.Err() == nil
	}
	return sleep(j.ctx, time.Duration(float64(j.bytes)/float64(j.perSecond)*float64(time.Second))-time.Since(j.began)) &&
		j.h.r.o.Cluster.Table() == j.table
}

// sleep reports false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// deliver sends a part until the node has it, but for what it rejects.
func (j *handoverJob) deliver(node int, p wire.Part) (rejected bool, err error) {
	pause := handoverPause
	for tries, floods := 0, 0; tries < handoverTries && floods < handoverFloods; {
		var a wire.Answer
		a, err = j.h.r.post(j.ctx, j.table, node, p)
		switch {
		case err != nil:
			tries++
		case a.Refused():
			tries++
			err = errors.New(a.Retry)
		case a.Status == http.StatusTooManyRequests: // it takes some new series with each try
			floods++
			err = errors.New(a.Retry)
		default:
			return a.Status != http.StatusNoContent, nil // what it rejects it would always reject
		}
		if !sleep(j.ctx, max(pause, min(a.RetryAfter, 8*handoverPause))) || j.h.r.o.Cluster.Table() != j.table {
			return false, cmp.Or(err, errors.New("the cluster changed"))
		}
		pause = min(2*pause, 8*handoverPause)
	}
	return false, err
}

// post sends one part to a node.
func (r *Router) post(ctx context.Context, t Table, node int, p wire.Part) (a wire.Answer, err error) {
	id, url := t.Node(node)
	ctx, cancel := context.WithTimeout(ctx, handoverTimeout)
	defer cancel()
	head := wire.AppendPartHead(wire.AppendBundle(nil), p)
	b := bundle{bundleBuffer: bundleBuffer{pieces: [][]byte{head, p.Body}, size: len(head) + len(p.Body)}}
	req, err := r.request(ctx, url, &b)
	if err != nil {
		return a, err
	}
	answers, err := b.exchange(r, req, 1)
	if err != nil {
		return a, fmt.Errorf("%s: %w", id, err)
	}
	return answers[0], nil
}
