package send

import (
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// Short names for what tests of both ends share.
var (
	now       = writetest.Now
	labelText = writetest.LabelText
	line      = writetest.Line
	answered  = writetest.Answered
	sample    = writetest.Sample
	named     = writetest.Named
	marshal   = writetest.Marshal
	both      = writetest.Both
)

// receiver is a Handler with its cache, which may be one to forward from.
type receiver struct {
	*writetest.Receiver
	*remotewrite.Handler
}

func newReceiver(t testing.TB, o remotewrite.Options) receiver {
	t.Helper()
	return newReceiverWith(t, o, mcache.Options{})
}

// newWriteBack is a receiver whose cache knows what was not forwarded.
func newWriteBack(t testing.TB, o remotewrite.Options) receiver {
	t.Helper()
	return newReceiverWith(t, o, mcache.Options{WriteBack: true})
}

func newReceiverWith(t testing.TB, o remotewrite.Options, cache mcache.Options) receiver {
	t.Helper()
	r := receiver{Receiver: writetest.New(t, cache)}
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	r.Handler = remotewrite.NewHandler(r.Cache, o)
	r.To = r.Handler
	return r
}

// encode makes a request of protocol p with Prometheus' own encoder.
func encode(t testing.TB, p wire.Protocol, series ...Series) []byte {
	t.Helper()
	var all []writetest.Series
	for _, s := range series {
		all = append(all, writetest.Series{Labels: s.Labels, Samples: s.Samples})
	}
	return writetest.Encode(t, p, all...)
}
