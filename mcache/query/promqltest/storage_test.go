package promqltest

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/query"
)

const bucket = "default"

// cacheStorage is an mcache in the shape of a Prometheus storage, as far as
// scripts need one.
type cacheStorage struct {
	*query.Queryable
	memory *kvcache.Memory
	cache  *mcache.Cache
}

func newCacheStorage(tb testing.TB) storage.Storage { return newCacheStorageOf(tb, 0) }

// newCacheStorageOf makes a cache of so many shards. With one, series are read
// in the order they were written, as from Prometheus' storage; sums of floats
// depend on that in their last digits.
func newCacheStorageOf(tb testing.TB, shards int) *cacheStorage {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, ReserveBytes: 64 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	cache, err := mcache.New(mcache.Options{Memory: memory, Shards: shards})
	if err != nil {
		tb.Fatal(err)
	}
	return &cacheStorage{
		Queryable: query.NewQueryable(cache, bucket, query.QueryableOptions{Labels: query.NewLabelCache(1 << 20)}),
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

// appender writes at once: scripts never roll back. Histograms and start times
// are dropped, there is no place for them.
type appender struct{ s *cacheStorage }

func (a appender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AppendV2Options) (storage.SeriesRef, error) {
	if h != nil || fh != nil {
		return 0, nil
	}
	pairs := make([]mcache.Label, 0, ls.Len())
	ls.Range(func(l labels.Label) { pairs = append(pairs, mcache.Label{Name: l.Name, Value: l.Value}) })
	return 0, a.s.cache.AppendSamples(bucket, pairs, mcache.Sample{T: t, V: math.Float64bits(v)})
}

func (appender) Commit() error   { return nil }
func (appender) Rollback() error { return errUnused }
