package promqltest

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
)

// TestRemoteReadByPrometheus puts Prometheus' own client in front of our remote
// read, in both of its forms, and its API on top of that. The answers must be
// those of our API.
func TestRemoteReadByPrometheus(t *testing.T) {
	p := newPair(t)
	var types []string // of the answers to remote reads
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ours.ServeHTTP(w, r)
		types = append(types, w.Header().Get("Content-Type"))
	}))
	defer server.Close()
	u, err := url.Parse(server.URL + "/api/v1/read")
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []struct {
		accepted    []prompb.ReadRequest_ResponseType
		contentType string
	}{
		{remote.AcceptedResponseTypes, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"},
		{[]prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES}, "application/x-protobuf"},
	} {
		client, err := remote.NewReadClient("ours", &remote.ClientConfig{
			URL:              &config_util.URL{URL: u},
			Timeout:          model.Duration(time.Minute),
			ChunkedReadLimit: config.DefaultChunkedReadLimit,

			AcceptedResponseTypes: form.accepted,
		})
		if err != nil {
			t.Fatal(err)
		}
		read := remote.NewSampleAndChunkQueryableClient(client, labels.EmptyLabels(), nil, true, func() (int64, error) { return math.MaxInt64, nil })
		through := pair{theirs: prometheusAPI(read, nil, settings{}), ours: p.ours}
		types = nil
		queries := 0
		for _, e := range []string{
			`up`, `{job="api"}`, `http_requests_total{code=~"4..|5.."}`, `load_ratio{job!="api"}`, `odd`, `comes_and_goes`,
			`rate(http_requests_total[5m])`, `increase(http_requests_total[10m] offset 3m)`, `max by (job) (load_ratio)`, `count(up)`,
			`histogram_quantile(0.9, rate(latency_seconds_bucket[5m]))`, `up * on(job) group_left(version) version_info`, `{"name.with dots"}`, `nothing`,
			`request_seconds`, `rate(request_seconds[5m])`, `queue_gauge`, `custom_seconds`, `mixed`, `histogram_quantile(0.9, sum(rate(custom_seconds[5m])))`, `resets(request_seconds[1h])`,
		} {
			through.compare(t, "query", url.Values{"query": {e}, "time": {fmt.Sprint(dataStart/1000 + 2000)}})
			through.compare(t, "query_range", url.Values{"query": {e}, "start": {fmt.Sprint(dataStart / 1000)}, "end": {fmt.Sprint(dataEnd / 1000)}, "step": {"37"}})
			queries += 2
		}
		if len(types) < queries {
			t.Errorf("%d answers to %d queries", len(types), queries)
		}
		for _, ct := range types {
			if ct != form.contentType {
				t.Errorf("answered in %s, not %s", ct, form.contentType)
			}
		}
	}
}
