package main

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExporters: what a dashboard asks of what exporters expose is there.
func TestExporters(t *testing.T) {
	s := newServer(t, nil)
	board := filepath.Join(t.TempDir(), "board.json")
	text := `{"panels":[
		{"title":"cpu","targets":[{"expr":"sum by (mode) (rate(node_cpu_seconds_total{instance=\"$node\",mode!=\"idle\"}[$__rate_interval]))"}]},
		{"title":"pods","targets":[{"expr":"sum(kube_pod_container_resource_requests{resource=\"cpu\"} and on (namespace, pod) kube_pod_status_phase{phase=\"Running\"})"}]},
		{"title":"latency","targets":[{"expr":"histogram_quantile(0.9, sum by (le) (rate(http_request_duration_seconds_bucket{code=~\"200|500\"}[5m])))"}]},
		{"title":"broken","targets":[{"expr":"sum("}]}]}`
	if err := os.WriteFile(board, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"exporters", "--url", s.URL + "/api/v1/write", "--nodes=2", "--pods=3", "--history=10m", "--end=1795208700000", board}, &out); err != nil {
		t.Fatal(err)
	}
	// 2 × 64 of processors, 2 × 3 × 4 of containers, 2 × 3 × 5 phases, 2 × 12 × 2 buckets.
	if got := out.String(); !strings.Contains(got, "230 series of 4 metrics, 40 samples of each, until 1795208700000") || !strings.Contains(got, "broken: left out") {
		t.Error(got)
	}
	out.Reset()
	if err := run(t.Context(), []string{"dashboards", "--url", s.URL, "--reference-url", s.URL, "--range=5m", "--end=1795208700000", "--times=1", "--var=node=10.0.0.1:9100", board}, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "3 expressions over 5m0s") || !strings.Contains(got, "3 answers the same") {
		t.Error(got)
	}
	resp, err := http.Get(s.URL + "/api/v1/query?time=1795208700&query=" + url.QueryEscape(`count(sum by (mode) (node_cpu_seconds_total)) + sum(kube_pod_status_phase{phase="Running"} >= bool 0)`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"14"`) { // 8 modes, 6 pods
		t.Errorf("%v, %s", err, body)
	}
	for _, bad := range []string{"--nodes=0", "--pods=0", "--interval=0s", "--history=1s"} {
		if err := run(t.Context(), []string{"exporters", bad, board}, &out); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
