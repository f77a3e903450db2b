package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestE2EThreeDaemons: a real Prometheus spreads its series over three daemons
// by hashmod, a second one joins them by remote read and answers as the first
// does. When one daemon stops, what was on it is missing, is said to be, and
// nothing else is.
func TestE2EThreeDaemons(t *testing.T) {
	path := realServer(t, "prometheus", "prometheus")
	t.Parallel()
	tg := newTarget(t)
	var daemons []*server
	var write, read strings.Builder
	for i := range 3 {
		s := startServer(t, "--self-scrape.interval=0")
		daemons = append(daemons, s)
		fmt.Fprintf(&write, `
- url: %s/api/v1/write
  queue_config: {batch_send_deadline: 200ms, min_backoff: 30ms}
  write_relabel_configs:
  - {source_labels: [__name__], action: hashmod, modulus: 3, target_label: __tmp_shard}
  - {source_labels: [__tmp_shard], action: keep, regex: '%d'}
  - {action: labeldrop, regex: __tmp_shard}`, s.url, i)
		fmt.Fprintf(&read, "\n- {url: '%s/api/v1/read', read_recent: true}", s.url)
	}
	writer := startPrometheus(t, path, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs: [{job_name: target, static_configs: [{targets: ['%s']}]}]
remote_write:%s
`, host(tg.URL), write.String()))
	reader := startPrometheus(t, path, "remote_read:"+read.String()+"\n")

	eventually(t, "the target was scraped 8 times", func() error {
		if n := tg.scrapes.Load(); n < 8 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	at := quietTime(t, writer, 1)
	eventually(t, "the daemons together have what the writer has", func() error {
		return sameSamples(reader, writer, at)
	})
	compared := 0
	for _, expr := range []string{`requests_total`, `sum by (method) (rate(requests_total[4s]))`, `temperature`, `count by (__name__) ({job="target"})`, `odd`, `text`,
		`histogram_quantile(0.9, rate(latency_seconds_bucket[4s]))`, `up`, `max_over_time(temperature[5s]) - on () group_left () resets_total`} {
		compared += compare(t, expr, reader, writer, "/api/v1/query?"+url.Values{"query": {expr}, "time": {stamp(at)}}.Encode())
	}
	if compared < 8 {
		t.Errorf("only %d answers had something in them", compared)
	}

	// Which daemon has which metrics; each must have some, or nothing was spread.
	on := make([]map[string]bool, 3)
	for i, s := range daemons {
		var names struct{ Data []string }
		if err := s.get("/api/v1/label/__name__/values", &names); err != nil {
			t.Fatal(err)
		}
		on[i] = map[string]bool{}
		for _, n := range names.Data {
			on[i][n] = true
			for j := range i {
				if on[j][n] {
					t.Errorf("%s is on two daemons", n)
				}
			}
		}
		if len(on[i]) == 0 {
			t.Fatalf("daemon %d got nothing", i)
		}
	}
	if code := daemons[0].stop(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	for i := range on {
		for name := range on[i] {
			var answer struct {
				Warnings []string
				Data     struct{ Result []any }
			}
			q := "/api/v1/query?" + url.Values{"query": {name + "[30s]"}, "time": {stamp(at.Add(time.Millisecond))}}.Encode()
			eventually(t, "the reader answers", func() error {
				if err := getJSON(reader+q, &answer); err != nil {
					return err
				}
				if len(answer.Warnings) == 0 {
					return errors.New("no warning although a daemon is gone")
				}
				return nil
			})
			if there := len(answer.Data.Result) > 0; there != (i != 0) {
				t.Errorf("%s was on daemon %d, and is there now: %v", name, i, there)
			}
		}
	}
}
