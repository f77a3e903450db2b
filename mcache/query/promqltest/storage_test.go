package promqltest

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/query"
)

const bucket = "default"

// cacheStorage is an mcache in the shape of a Prometheus storage, as far as
// the tests need one.
type cacheStorage struct {
	*query.Queryable
	memory *kvcache.Memory
	cache  *mcache.Cache
}

// newCacheStorage makes a cache of so many shards, 0 for the default. With one,
// series are read in the order they were written, as from Prometheus' storage;
// sums of floats depend on that in their last digits.
func newCacheStorage(tb testing.TB, shards int) *cacheStorage {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, ReserveBytes: 64 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	cache, err := mcache.New(mcache.Options{Memory: memory, Shards: shards})
	if err != nil {
		tb.Fatal(err)
	}
	return &cacheStorage{
		Queryable: query.NewQueryable(query.FromCache(cache, query.NewLabelCache(1<<20)), bucket, query.QueryableOptions{}),
		memory:    memory,
		cache:     cache,
	}
}

func (s *cacheStorage) Close() error {
	err := s.cache.Close()
	s.memory.Close()
	return err
}

func (s *cacheStorage) StartTime() (int64, error) { return 0, nil }

var errUnused = errors.New("not used by the scripts")

func (s *cacheStorage) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return nil, errUnused
}

func (s *cacheStorage) Appender(context.Context) storage.Appender { panic(errUnused) }

func (s *cacheStorage) AppenderV2(context.Context) storage.AppenderV2 { return appender{s} }

// appender writes at once: scripts never roll back.
type appender struct{ s *cacheStorage }

func (a appender) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AppendV2Options) (storage.SeriesRef, error) {
	pairs := make([]mcache.Label, 0, ls.Len())
	ls.Range(func(l labels.Label) { pairs = append(pairs, mcache.Label{Name: l.Name, Value: l.Value}) })
	var b mcache.Batch
	b.Reset(bucket)
	b.Series(a.s.cache.Fingerprint(pairs))
	if h == nil && fh == nil {
		b.Sample(t, math.Float64bits(v))
		b.StartTime(st)
	} else {
		// As the receiver of remote write stores them.
		var m writev2.Histogram
		if h != nil {
			m = writev2.FromIntHistogram(st, t, h)
		} else {
			m = writev2.FromFloatHistogram(st, t, fh)
		}
		value, err := m.Marshal()
		if err != nil {
			return 0, err
		}
		b.Record(t, value)
	}
	if _, err := a.s.cache.Append(&b); err != nil {
		return 0, err
	}
	for _, i := range b.Missing() {
		if _, err := a.s.cache.AppendNew(&b, i, pairs); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (appender) Commit() error   { return nil }
func (appender) Rollback() error { return errUnused }
