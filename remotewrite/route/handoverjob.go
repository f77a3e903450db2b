package route

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// handoverJob is what follows from one change.
type handoverJob struct {
	h         *Handover
	ctx       context.Context
	table     Table
	plan      [][]target // by slot
	perSecond int        // bytes; 0: no bound
	began     time.Time
	bytes     int          // sent
	sent      int          // samples
	lost      map[int]bool // nodes that were given up
	// completeFrom is from when on series that were sent lack nothing, by slot.
	completeFrom []int64
	claimable    func(slot uint16, tell func(e ClaimedEra, from, until int64)) // nil: nothing
	rejected     bool                                                          // a node did not take all
	from, until  int64                                                         // ms: what was sent, and when that began
	bucket       string                                                        // of batches
	batches      map[int]*batch
	batchBytes   int // about how much each has when it is sent
	encoder      send.EncoderV2
	takes        map[int]bool // whether nodes that were asked take blocks
	unpacker     send.Unpacker
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
	from := j.until
	for _, targets := range j.plan {
		for _, t := range targets {
			from = min(from, t.from)
		}
	}
	from = max(from, j.from)
	ok := true
	want := func(slot uint16) bool { return len(j.plan[slot]) > 0 }
	take := func(bucket string, slot uint16, completeFrom int64, s send.Series) bool {
		j.completeFrom[slot] = max(completeFrom, j.completeFrom[slot])
		if s.Points() == 0 {
			return ok
		}
		if bucket != j.bucket { // so that only those of one are held at a time
			ok = ok && j.flushAll()
			j.bucket = string([]byte(bucket))
		}
		for _, t := range j.plan[slot] {
			ok = ok && j.add(t, s)
		}
		return ok
	}
	j.h.o.Holdings.Newest(from, j.until-handoverRecent.Milliseconds(), want, take)
	if !ok || !j.flushAll() {
		return false
	}
	j.h.o.Holdings.Rest(from, want, take)
	return ok && j.flushAll()
}

// takesBlocks asks a node, once, whether it takes them.
func (j *handoverJob) takesBlocks(node int) bool {
	takes, asked := j.takes[node]
	if !asked {
		takes = j.h.r.takesBlocks(j.ctx, j.table, node)
		j.takes[node] = takes
	}
	return takes
}

// add reports false when the job is over.
func (j *handoverJob) add(t target, s send.Series) bool {
	if s = j.unpacker.Since(s, t.from); len(s.Blocks) > 0 && !j.takesBlocks(t.node) {
		s = j.unpacker.Plain(s)
	}
	if s.Points() == 0 {
		return true
	}
	b := j.batches[t.node]
	if b == nil {
		b = new(batch)
		j.batches[t.node] = b
	}
	for _, r := range s.Records {
		b.bytes += len(r.Value)
	}
	for _, l := range s.Labels {
		b.bytes += len(l.Name) + len(l.Value)
	}
	const sampleBytes, blockBytes = 18, 10
	for _, x := range s.Blocks {
		b.bytes += blockBytes + len(x.Bytes)
	}
	b.Add(s)
	b.points += s.Points()
	if b.bytes += sampleBytes * (len(s.Samples) + len(s.Records)); b.bytes < j.batchBytes {
		return true
	}
	return j.flush(t.node, b)
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
	protocol := wire.V2
	if slices.ContainsFunc(b.Series, func(s send.Series) bool { return len(s.Blocks) > 0 }) {
		protocol = wire.Blocks
	}
	body := j.encoder.Append(make([]byte, 0, b.bytes), b.Series) // not one for all: who sends may read on when he was answered
	if j.lost[node] {
		j.h.failed.Add(int64(b.points))
	} else {
		part := wire.Part{Protocol: protocol, Bucket: j.bucket, Settled: true, Body: body}
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
	b := newBundle(wire.AppendPartHead(wire.AppendBundle(nil), p), p.Body)
	answers, err := r.postBundle(ctx, t, node, b, 1)
	if err != nil {
		return a, err
	}
	return answers[0], nil
}

// takesBlocks asks a node, by a bundle without parts, whether it takes wire.Blocks. One
// that does not answer is taken for one that does not.
func (r *Router) takesBlocks(ctx context.Context, t Table, node int) bool {
	b := newBundle(wire.AppendBundle(nil))
	_, err := r.postBundle(ctx, t, node, b, 0)
	return err == nil && b.blocks
}

func newBundle(pieces ...[]byte) *bundle {
	b := &bundle{bundleBuffer: bundleBuffer{pieces: pieces}}
	for _, p := range pieces {
		b.size += len(p)
	}
	return b
}

// postBundle sends a bundle of n parts to a node.
func (r *Router) postBundle(ctx context.Context, t Table, node int, b *bundle, n int) ([]wire.Answer, error) {
	id, url := t.Node(node)
	ctx, cancel := context.WithTimeout(ctx, handoverTimeout)
	defer cancel()
	req, err := r.request(ctx, url, b)
	if err != nil {
		return nil, err
	}
	answers, err := b.exchange(r, req, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return answers, nil
}
