package promqltest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/query"
)

// The store and the cache of BenchmarkReadThrough are processes of their own, so
// that each has its own processor time: this test binary, started with one of
// these in its environment. Each prints where it listens once it has its data;
// then it answers every line that it reads with the processor time that it has
// used so far, in µs. It ends when there is nothing to read any more.
const (
	childStore = "MCACHED_READTHROUGH_STORE" // the directory of its data
	childCache = "MCACHED_READTHROUGH_CACHE" // the store's URL
)

const (
	weekEnd   = int64(dataStart) / 60_000 * 60_000 // unix ms
	weekStep  = 60_000
	weekLong  = 7*24*3_600_000 + 2*3_600_000 // a query of a week begins after it does
	heldLong  = 2 * 3_600_000                // so much of it is in memory
	weekCount = 200                          // series
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(childStore) != "":
		err = runStore(os.Getenv(childStore))
	case os.Getenv(childCache) != "":
		err = runCache(os.Getenv(childCache))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// weekData are the samples of the series from a time on, minute by minute, as
// they are whoever asks: counters of ten groups, under two names.
func weekData(from int64, add func(ls labels.Labels, i int, t int64, v float64) error) error {
	rnd := rand.New(rand.NewPCG(17, 17))
	var series [weekCount]labels.Labels
	var values [weekCount]float64
	for i := range series {
		series[i] = labels.FromStrings("__name__", "m", "g", strconv.Itoa(i%10), "instance", fmt.Sprintf("10.0.0.%d:9100", i), "job", "node")
	}
	for t := int64(weekEnd - weekLong); t <= weekEnd; t += weekStep {
		for i, ls := range series {
			values[i] += float64(rnd.IntN(1000)) / 8
			if t < from {
				continue
			}
			if err := add(ls, i, t, values[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// runStore is Prometheus' storage, engine and API, with all of the data.
func runStore(dir string) error {
	options := tsdb.DefaultOptions()
	// As Prometheus' command has them, with its default retention of 15 days: a
	// query of a week reads ten blocks, and not 84.
	options.MaxBlockDuration = (36 * time.Hour).Milliseconds()
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, options, nil)
	if err != nil {
		return err
	}
	ctx := context.Background()
	var a storage.Appender
	var refs [weekCount]storage.SeriesRef
	err = weekData(0, func(ls labels.Labels, i int, t int64, v float64) (err error) {
		if i == 0 && t%3_600_000 == 0 && a != nil {
			err, a = a.Commit(), nil
		}
		if a == nil {
			a = db.Appender(ctx)
		}
		if err == nil {
			refs[i], err = a.Append(refs[i], ls, t, v)
		}
		return err
	})
	if err == nil {
		err = a.Commit()
	}
	if err == nil {
		err = db.Compact(ctx)
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- servePrometheus(ctx, l, db) }()
	return report(l, failed)
}

// runCache is a cache of the latest data, by itself below /alone, and before the
// store below /through.
func runCache(store string) error {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 512 << 20})
	if err != nil {
		return err
	}
	var now int64
	cache, err := mcache.New(mcache.Options{Memory: memory, Now: func() int64 { return now }})
	if err != nil {
		return err
	}
	a := (&cacheStorage{cache: cache}).AppenderV2(context.Background())
	if err := weekData(weekEnd-heldLong, func(ls labels.Labels, _ int, t int64, v float64) error {
		now = t
		_, err := a.Append(0, ls, 0, t, v, nil, nil, storage.AppendV2Options{})
		return err
	}); err != nil {
		return err
	}
	answers, err := kvcache.NewCache(kvcache.CacheOptions{Memory: memory, Account: 1, Shards: 4, MaxLargeBytes: query.MaxRememberedBytes})
	if err != nil {
		return err
	}
	u, err := url.Parse(store)
	if err != nil {
		return err
	}
	o := query.Options{DefaultBucket: bucket, MaxSamples: 50_000_000, Now: func() time.Time { return time.UnixMilli(weekEnd) }}
	alone := query.NewAPI(cache, o)
	o.Upstream = &query.UpstreamOptions{URL: u, Memory: answers, Settled: time.Hour}
	through := query.NewAPI(cache, o)
	through.Upstream(context.Background())
	mux := http.NewServeMux()
	mux.Handle("/alone/", http.StripPrefix("/alone", alone))
	mux.Handle("/through/", http.StripPrefix("/through", through))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- http.Serve(l, mux) }()
	return report(l, failed)
}

// report says where a child listens, and then its processor time when asked.
func report(l net.Listener, failed chan error) error {
	fmt.Printf("http://%s\n", l.Addr())
	asked := bufio.NewReader(os.Stdin)
	for {
		switch _, err := asked.ReadString('\n'); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			return err
		}
		fmt.Println((used.Utime.Nano() + used.Stime.Nano()) / 1000)
	}
}
