package promqltest

import (
	"context"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
)

// floatStorage is Prometheus' own storage, kept from what an mcache can not
// store either. What passes on the one must pass on the other.
type floatStorage struct{ storage.Storage }

func newFloatStorage(tb testing.TB) storage.Storage { return floatStorage{teststorage.New(tb)} }

func (s floatStorage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return floatAppender{s.Storage.AppenderV2(ctx)}
}

type floatAppender struct{ storage.AppenderV2 }

func (a floatAppender) Append(ref storage.SeriesRef, ls labels.Labels, _, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	if h != nil || fh != nil {
		return 0, nil
	}
	return a.AppenderV2.Append(ref, ls, 0, t, v, nil, nil, o)
}
