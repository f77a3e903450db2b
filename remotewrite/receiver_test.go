package remotewrite

import (
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite/writetest"
)

// Short names for what tests of both ends share.
type Series = writetest.Series

var (
	now         = writetest.Now
	contentType = writetest.ContentType
	labelText   = writetest.LabelText
	line        = writetest.Line
	answered    = writetest.Answered
	wrote       = writetest.Wrote
	sample      = writetest.Sample
	labels      = writetest.Labels
	named       = writetest.Named
	encode      = writetest.Encode
	requestV1   = writetest.RequestV1
	requestV2   = writetest.RequestV2
	marshal     = writetest.Marshal
	both        = writetest.Both
)

// receiver is a Handler with its cache.
type receiver struct {
	*writetest.Receiver
	*Handler
}

func newReceiver(t testing.TB, o Options) receiver {
	t.Helper()
	return newReceiverWith(t, o, mcache.Options{})
}

// newReceiverWith has a cache with options of its own, but for its Memory.
func newReceiverWith(t testing.TB, o Options, cache mcache.Options) receiver {
	t.Helper()
	r := receiver{Receiver: writetest.New(t, cache)}
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	r.Handler = NewHandler(r.Cache, o)
	r.To = r.Handler
	return r
}
