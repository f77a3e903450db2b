package query

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// A selector that matches nothing in memory may match something in the store:
// recording rules, and what write_relabel_configs drop, are only there. Many a
// panel has one that matches nothing anywhere, as the rate of errors that never
// were. So the store is asked for one series of it, which costs it little, and
// what it says is remembered for some seconds.

const (
	rememberNothing = 15 * time.Second
	maxNothing      = 1000 // selectors that are remembered
)

// nothings are selectors that the store was asked about.
type nothings struct {
	mu    sync.Mutex
	known map[string]nothing // by bucket and selector
}

type nothing struct {
	some  bool  // it has series of the selector
	from  int64 // since when it has none, unix ms
	until time.Time
}

// forget has the store asked again.
func (n *nothings) forget() {
	n.mu.Lock()
	clear(n.known)
	n.mu.Unlock()
}

// nothingThere reports that the store has no series of any of the selectors
// either, in a time that ends now or before.
func (a *API) nothingThere(r *http.Request, bucket string, selectors [][]*labels.Matcher, at window) bool {
	for _, ms := range selectors {
		if a.upstream.authoritative(ms) {
			continue
		}
		if some, err := a.someThere(r, bucket, spellSelector(ms), at); some || err != nil {
			return false
		}
	}
	return true
}

// someThere reports whether the store has a series of a selector.
func (a *API) someThere(r *http.Request, bucket, selector string, at window) (bool, error) {
	n, key, now := &a.upstream.nothings, bucket+"\x00"+selector, a.o.Now()
	n.mu.Lock()
	known, ok := n.known[key]
	n.mu.Unlock()
	if ok && now.Before(known.until) && (known.some || known.from <= at.from) {
		return known.some, nil
	}
	v, err := a.visit(r)
	if err != nil {
		return false, err
	}
	defer v.end()
	return v.some(bucket, selector, at)
}

// some asks the store whether it has a series of a selector, and remembers what it says.
func (v *visit) some(bucket, selector string, at window) (bool, error) {
	res, err := v.ask("/api/v1/series", url.Values{"match[]": {selector}, "start": {milliText(at.from)}, "end": {milliText(at.to)}, "limit": {"1"}}, "identity")
	if err != nil {
		return false, err
	}
	defer res.Close()
	found, err := someListed(res)
	if err != nil {
		v.tell(err)
		return false, err
	}
	_, _ = io.CopyN(io.Discard, res, readBytes) // the rest, if it is short: the connection is kept for others
	n := &v.u.nothings
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil || len(n.known) >= maxNothing {
		n.known = map[string]nothing{}
	}
	n.known[bucket+"\x00"+selector] = nothing{some: found, from: at.from, until: v.a.o.Now().Add(rememberNothing)}
	return found, nil
}

// someListed reports whether the list that an answer has is one of anything. It reads no
// further than to its first element: a store that knows no limit, as Prometheus
// 2.42, lists all its series.
func someListed(answer io.Reader) (some bool, err error) {
	m, listed := newMatrixReader(answer, gridOf{}, span{}), false
	_, err = m.members(func(key string) (bool, error) {
		switch key {
		case "status":
			return false, m.wantText("success")
		case "data":
			listed = true
			if err := m.want('['); err != nil {
				return false, err
			}
			switch m.skip() {
			case '{':
				some = true
			case ']':
				m.pos++
			default:
				return false, m.broken("a series")
			}
			return some, nil
		}
		_, err := m.value(nil, 0)
		return false, err
	})
	if err == nil && !listed {
		err = notMatrix("there is no list of series")
	}
	return some, err
}

// spellSelector is a selector of these matchers.
func spellSelector(ms []*labels.Matcher) string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String()
	}
	return fmt.Sprintf("{%s}", strings.Join(texts, ","))
}

// emptyEverywhere reports that those selectors of a query that match nothing in
// memory match nothing in the store.
func (a *API) emptyEverywhere(r *http.Request, s *slow) bool {
	selectors, at, ok := a.looksAt(r, s)
	if !ok {
		return false
	}
	bucket := a.bucket(r)
	_, empty, err := a.completeness(context.WithoutCancel(r.Context()), bucket, selectors, at)
	return err == nil && a.nothingThere(r, bucket, empty, at)
}
