package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"mcached/ingest"
	"mcached/kvcache"
)

// Accounts of the memory. What the metric cache holds by itself has the first,
// which is also that of whatever names none.
const (
	accountMetrics kvcache.Account = iota
	accountOverflow
	accountBlobs
	accountAnswers // that are remembered: of --query.upstream, and results computed here
)

// share is a flag's value: a part of the memory, spelt as 25%.
type share float64

// Set implements kingpin.Value.
func (s *share) Set(in string) error {
	digits, ok := strings.CutSuffix(strings.TrimSpace(in), "%")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !ok || !(n >= 1 && n <= 100) {
		return fmt.Errorf("%q is not a share from 1%% to 100%%", in)
	}
	*s = share(n / 100)
	return nil
}

// String implements kingpin.Value.
func (s *share) String() string {
	if s == nil {
		return ""
	}
	return strconv.FormatFloat(float64(*s)*100, 'g', 6, 64) + "%"
}

// shares say who may hold how much of memory when others want the room; that of
// metrics holds always.
type shares struct{ metrics, overflow, blobs, answers share }

// sharing is the shares in force.
type sharing struct {
	mu sync.Mutex
	shares
	maxBytes int64 // of the metric cache, as set last
}

// setShares changes the shares, at any time after the memory and the metric
// cache were opened.
func (d *daemon) setShares(s shares) error {
	d.sharing.mu.Lock()
	d.sharing.shares = s
	d.sharing.mu.Unlock()
	for account, v := range map[kvcache.Account]share{accountMetrics: s.metrics, accountOverflow: s.overflow, accountBlobs: s.blobs, accountAnswers: s.answers} {
		if err := d.memory.SetShare(account, float64(v)); err != nil {
			return err
		}
	}
	d.boundMetrics()
	return nil
}

// boundMetrics makes the metric cache evict, into overflow blobs, what is beyond
// its share of the budget as it is now. With all of the budget it has no bound
// of its own.
func (d *daemon) boundMetrics() {
	d.sharing.mu.Lock()
	most := int64(0)
	if s := d.sharing.metrics; s < 1 {
		most = max(int64(float64(s)*float64(d.memory.Budget())), 1)
	}
	changed := most != d.sharing.maxBytes
	d.sharing.maxBytes = most
	d.sharing.mu.Unlock()
	if changed {
		d.metrics.SetMaxBytes(most)
	}
}

// shareParameters are the shares as CONFIG GET and CONFIG SET know them.
func (d *daemon) shareParameters() []ingest.Parameter {
	parameter := func(name string, of func(*shares) *share) ingest.Parameter {
		return ingest.Parameter{
			Name: name,
			Get: func() string {
				d.sharing.mu.Lock()
				defer d.sharing.mu.Unlock()
				return of(&d.sharing.shares).String()
			},
			Set: func(value string) error {
				d.sharing.mu.Lock()
				s := d.sharing.shares
				d.sharing.mu.Unlock()
				if err := of(&s).Set(value); err != nil {
					return err
				}
				return d.setShares(s)
			},
		}
	}
	return []ingest.Parameter{
		parameter("memory-answers-share", func(s *shares) *share { return &s.answers }),
		parameter("memory-blobs-share", func(s *shares) *share { return &s.blobs }),
		parameter("memory-metrics-share", func(s *shares) *share { return &s.metrics }),
		parameter("memory-overflow-share", func(s *shares) *share { return &s.overflow }),
	}
}
