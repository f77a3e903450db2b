package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"mcached/ingest/cluster"
)

// A member that joins is written to at once, and has nothing of what was written
// before until the others have sent it that. It is ready when they have, so that who
// restarts one member after the other, and waits for each to be ready, never stops
// the only one that has something. It asks them: each knows to whom it has sent all
// (route.Handover.Owes).
//
// Nothing waits for what does not come. Members that have gone are not asked, those
// that do not answer are waited for as long as handoverSilent, and all of them
// together as long as handoverFor.
//
// With copies of Redis keys it is promised some, too, and serves them when it is ready
// (cluster.Table.Promised): it waits for these while any come, and keysSilent more.
const (
	handoverFor    = 5 * time.Minute
	handoverSilent = 5 * time.Second
	handoverAsk    = 250 * time.Millisecond // between two rounds of questions
	handoverAnswer = time.Second            // for one of them
	keysSilent     = 10 * time.Second
	keysLook       = 50 * time.Millisecond

	// owedPath is where a member asks another. The body is its ID.
	owedPath     = "/api/v1/cluster/owed"
	maxOwedBytes = 1 << 10 // of a body
)

// awaitHandover returns true when none of the others that answer owes this member
// anything, and false when that takes too long, or ctx ends.
func awaitHandover(ctx context.Context, others func() []cluster.Member, owes func(context.Context, cluster.Member) (bool, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, handoverFor)
	defer cancel()
	var (
		done   = map[string]bool{}
		silent = map[string]time.Time{} // since when
	)
	for {
		asked := slices.DeleteFunc(others(), func(m cluster.Member) bool { return done[m.ID] })
		waits := false
		for i, a := range askAll(ctx, asked, owes) {
			id := asked[i].ID
			if a.err == nil {
				delete(silent, id)
				done[id] = !a.owes
				waits = waits || a.owes
				continue
			}
			if _, ok := silent[id]; !ok {
				silent[id] = time.Now()
			}
			waits = waits || time.Since(silent[id]) < handoverSilent
		}
		if ctx.Err() != nil {
			return false
		}
		if !waits {
			return true
		}
		if !sleep(ctx, handoverAsk) {
			return false
		}
	}
}

// awaitKeys returns true when nothing is owed any more, and false when no more comes,
// or ctx ends. owed is ingest.Server.OwedKeys.
func awaitKeys(ctx context.Context, owed func() (groups int, received uint64)) bool {
	last, since := uint64(0), time.Now()
	for {
		groups, received := owed()
		if groups == 0 {
			return true
		}
		if received != last {
			last, since = received, time.Now()
		}
		if time.Since(since) > keysSilent || !sleep(ctx, keysLook) {
			return false
		}
	}
}

// owed is a member's answer.
type owed struct {
	owes bool
	err  error
}

// maxAsked members are asked at a time.
const maxAsked = 16

func askAll(ctx context.Context, members []cluster.Member, owes func(context.Context, cluster.Member) (bool, error)) []owed {
	answers := make([]owed, len(members))
	turns := make(chan struct{}, maxAsked)
	var asking sync.WaitGroup
	for i, m := range members {
		turns <- struct{}{}
		asking.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, handoverAnswer)
			defer cancel()
			answers[i].owes, answers[i].err = owes(ctx, m)
		})
	}
	asking.Wait()
	return answers
}

// sleep reports false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// others are the members that can send this one something.
func (n *node) others() []cluster.Member {
	t := n.Table()
	self := n.Self().ID
	return slices.DeleteFunc(slices.Clone(t.Members()), func(m cluster.Member) bool { return m.ID == self || m.State == cluster.Leaving })
}

// isOwed asks a member whether it owes this one anything.
func (d *daemon) isOwed(ctx context.Context, m cluster.Member) (bool, error) {
	self := d.node.Self().ID
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.HTTP+owedPath, strings.NewReader(self))
	if err != nil {
		return false, err
	}
	f := &d.config.cluster
	f.keys.Sign(r, []byte(self))
	res, err := f.http.Do(r)
	if err != nil {
		return false, err
	}
	_ = res.Body.Close()
	switch res.StatusCode {
	case http.StatusAccepted:
		return true, nil
	case http.StatusNoContent, http.StatusNotFound: // or it is of a release that does not know
		return false, nil
	}
	return false, errors.New("it answers " + res.Status)
}

// serveOwed answers a member whether it is owed something: 202 if it is, 204 if not,
// and 403 whoever is no member.
func (d *daemon) serveOwed(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOwedBytes))
	if err == nil && d.node == nil {
		err = errors.New("mcached: this daemon is not one of a cluster")
	}
	if err == nil {
		err = d.config.cluster.keys.Verify(r, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if d.owes(string(body)) {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// owes says whether this daemon may have something for a member that it has not sent.
func (d *daemon) owes(id string) bool {
	return d.handover != nil && d.handover.Owes(id) && slices.ContainsFunc(d.metrics.Buckets(), func(bucket string) bool {
		return bucket != selfBucket && d.metrics.SeriesOf(bucket) > 0
	})
}
