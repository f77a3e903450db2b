package main

import (
	"context"
	"math"
	"time"

	"mcached/ingest/cluster"
	"mcached/mcache"
	"mcached/mcache/query"
	"mcached/remotewrite/route"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// openHandover makes what gives members the newest data of what they come to own.
func (d *daemon) openHandover() error {
	if d.router == nil || d.config.cluster.handover == 0 {
		return nil
	}
	var err error
	d.handover, err = d.router.NewHandover(route.HandoverOptions{
		Holdings: holdings{d}, Window: d.config.cluster.handover.std(), Claimable: d.claimable, Eras: d.eras,
		Leaving: func(t route.Table, i int) bool {
			return t.(writeTable).Members()[i].State == cluster.Leaving
		},
		Began: func(t route.Table, i int) int64 { return d.node.Began(t.(writeTable).Members()[i]) },
	})
	return err
}

// eras are those that are over, and lasted at a time or began later.
func (d *daemon) eras(since int64) (list []route.Era) {
	if d.node == nil {
		return nil
	}
	for _, e := range d.node.Eras(since) {
		if e.Until != 0 {
			list = append(list, route.Era{ID: e.ID(), From: e.From, Until: e.Until, Table: func() route.Table { return writeTable{e.Table()} }})
		}
	}
	return list
}

// claimable says what a member can claim that this one hands over to: see query.FanOut.
func (d *daemon) claimable(from, until int64) func(slot uint16, tell func(e route.ClaimedEra, from, until int64)) {
	of := d.queries.FanOut().Claimable(from, until, func() int64 {
		gone := int64(math.MinInt64)
		for _, bucket := range d.metrics.Buckets() {
			if t, ok := d.metrics.GoneUntil(bucket, nil); ok && bucket != selfBucket {
				gone = max(gone, t)
			}
		}
		return gone
	})
	return func(slot uint16, tell func(e route.ClaimedEra, from, until int64)) {
		of(slot, func(e query.ClaimedEra, from, until int64) { tell(route.ClaimedEra(e), from, until) })
	}
}

// claims are what was handed over to the daemon.
func (d *daemon) claims() (version uint64, all []query.SlotClaim) {
	version, list := d.router.Claimed()
	for _, c := range list {
		x := query.SlotClaim{From: c.From, Until: c.Until, Slots: c.Slots, Eras: make([]query.ClaimedEra, len(c.Eras))}
		for i, e := range c.Eras {
			x.Eras[i] = query.ClaimedEra(e)
		}
		all = append(all, x)
	}
	return version, all
}

// handOver gives others what this daemon has alone, before it stops.
func (d *daemon) handOver(timeout time.Duration) {
	if d.handover == nil {
		return
	}
	const rest = 5 // a part of the time is for requests under way
	ctx, cancel := context.WithTimeout(context.Background(), timeout-timeout/rest)
	defer cancel()
	if !d.handover.Drain(ctx) {
		d.log.Warn("Not all of what others own now was handed over.", "timeout", timeout, "flag", "--shutdown.timeout")
	}
}

// holdings are what the daemon has of all buckets but its own.
type holdings struct{ d *daemon }

// Newest implements route.Holdings.
func (h holdings) Newest(from, recent int64, want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool) {
	h.each(want, func(id mcache.SeriesID, snap *mcache.Snapshot, s *send.Series) bool {
		if !h.d.metrics.SnapshotNewest(id, from, recent, snap) {
			return false
		}
		appendPoints(s, snap)
		return true
	}, func(bucket string, slot uint16, snap *mcache.Snapshot, s send.Series) bool {
		return s.Points() == 0 || f(bucket, slot, snap.CompleteFrom(), s)
	})
}

// Rest implements route.Holdings.
func (h holdings) Rest(from int64, want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool) {
	h.each(want, func(id mcache.SeriesID, snap *mcache.Snapshot, s *send.Series) (ok bool) {
		if !h.d.metrics.Snapshot(id, from, math.MaxInt64, snap) {
			return false
		}
		if s.Blocks, ok = snap.Blocks(s.Blocks); !ok {
			appendPoints(s, snap)
		}
		return true
	}, func(bucket string, slot uint16, snap *mcache.Snapshot, s send.Series) bool {
		return s.Points() == 0 && snap.CompleteFrom() <= from || f(bucket, slot, snap.CompleteFrom(), s)
	})
}

// each calls take for every series of a slot that is wanted, to fill in what it has, and
// f with that, until f reports false. What take reports false for is passed over.
func (h holdings) each(want func(slot uint16) bool, take func(id mcache.SeriesID, snap *mcache.Snapshot, s *send.Series) bool, f func(bucket string, slot uint16, snap *mcache.Snapshot, s send.Series) bool) {
	var (
		c      = h.d.metrics
		ids    []mcache.SeriesID
		labels []mcache.Label
		snap   mcache.Snapshot
		s      send.Series
	)
	for _, bucket := range c.Buckets() {
		if bucket == selfBucket {
			continue
		}
		ids, _ = c.Select(bucket, nil, ids[:0]) // of a raw bucket there are none
		for _, id := range ids {
			var ok bool
			if labels, ok = c.Labels(id, labels[:0]); !ok {
				continue
			}
			s = send.Series{Labels: labels, Samples: s.Samples[:0], Starts: s.Starts[:0], Records: s.Records[:0], Blocks: s.Blocks[:0]}
			slot := h.d.router.SlotOf(bucket, &s)
			if !want(slot) || !take(id, &snap, &s) {
				continue
			}
			for _, l := range labels {
				if l.Name == wire.MetricName {
					s.Metadata, _ = h.d.writes.Describe(bucket, l.Value)
				}
			}
			if !f(bucket, slot, &snap, s) {
				return
			}
		}
	}
}

// appendPoints appends what is in a snapshot to s.
func appendPoints(s *send.Series, snap *mcache.Snapshot) {
	started := false
	for it := snap.Iterator(); it.Next(); {
		if it.OnRecord() {
			s.Records = append(s.Records, it.Record())
			continue
		}
		s.Samples, s.Starts = append(s.Samples, it.At()), append(s.Starts, it.StartTime())
		started = started || it.StartTime() != 0
	}
	if !started {
		s.Starts = s.Starts[:0] // or each would be asked whether it has one
	}
}
