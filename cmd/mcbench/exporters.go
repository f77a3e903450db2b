package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
)

// exportersCommand writes what dashboards look at.
func exportersCommand(app *kingpin.Application) (string, action) {
	c := app.Command("exporters", "Write to servers what exporters would expose of the metrics that Grafana dashboards look at: as many series of each as a small cluster has.")
	files := c.Arg("file", "A dashboard as JSON.").Required().ExistingFiles()
	to := c.Flag("url", "A receiver of remote write 1.0. Repeatable.").Default("http://127.0.0.1:9201/api/v1/write").Strings()
	f := cluster{}
	c.Flag("nodes", "How many machines.").Default("4").IntVar(&f.nodes)
	c.Flag("pods", "How many pods on each.").Default("20").IntVar(&f.pods)
	history := c.Flag("history", "Of what time.").Default("24h").Duration()
	interval := c.Flag("interval", "Distance of a series' samples.").Default("15s").Duration()
	end := c.Flag("end", "The time of the last samples, in Unix milliseconds. Default: now.").Int64()
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		if f.nodes < 1 || f.pods < 1 || *interval < time.Millisecond || *history < *interval {
			return usageError{errors.New("--nodes and --pods must be at least 1, --interval 1ms, --history one interval")}
		}
		for _, file := range *files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			panels, err := panelsOf(text)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			for _, p := range panels {
				if err := f.note((&boards{window: time.Hour, step: 15 * time.Second}).fill(p.expr)); err != nil {
					fmt.Fprintf(out, "%s: %s: left out: %v\n", file, p.title, err)
				}
			}
		}
		at := *end
		if at == 0 {
			at = time.Now().UnixMilli()
		}
		w := exposition{series: f.series(), intervalMs: interval.Milliseconds(), samples: int(*history / *interval)}
		w.startMs = at - int64(w.samples-1)*w.intervalMs
		for _, url := range *to {
			if err := w.write(ctx, url); err != nil {
				return fmt.Errorf("%s: %w", url, err)
			}
		}
		fmt.Fprintf(out, "%d series of %d metrics, %d samples of each, until %d\n", len(w.series), len(f.metrics), w.samples, at)
		return nil
	}
}

// cluster is what is observed, and by which metrics: the labels that expressions
// want them to have, with the values that they name.
type cluster struct {
	nodes, pods int
	metrics     map[string]map[string][]string
}

// note takes the metrics of an expression.
func (f *cluster) note(expr string) error {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return err
	}
	if f.metrics == nil {
		f.metrics = map[string]map[string][]string{}
	}
	for _, selector := range parser.ExtractSelectors(parsed) {
		name := ""
		for _, m := range selector {
			if m.Name == metricNameLabel && m.Type == labels.MatchEqual {
				name = m.Value
			}
		}
		if name == "" {
			continue
		}
		wanted := f.metrics[name]
		if wanted == nil {
			wanted = map[string][]string{}
			f.metrics[name] = wanted
		}
		for _, m := range selector {
			if m.Name == metricNameLabel {
				continue
			}
			values := m.SetMatches()
			if m.Type == labels.MatchEqual {
				values = []string{m.Value}
			}
			for _, v := range values {
				if v != "" && !slices.Contains(wanted[m.Name], v) {
					wanted[m.Name] = append(wanted[m.Name], v)
				}
			}
		}
	}
	return nil
}

// dimensions are what tells the series of a metric of one target apart, by the
// beginning of its name; the first that fits holds.
var dimensions = []struct {
	prefix string
	labels map[string]int // how many values each has; the series are the product
}{
	{"node_cpu_", map[string]int{"cpu": 8, "mode": 8}},
	{"node_disk_", map[string]int{"device": 4}},
	{"node_network_", map[string]int{"device": 5}},
	{"node_filesystem_", map[string]int{"mountpoint": 6}},
	{"node_hwmon_", map[string]int{"chip": 2, "sensor": 4}},
	{"node_systemd_", map[string]int{"state": 5}},
	{"kube_pod_status_phase", map[string]int{"phase": 5}},
	{"kube_pod_container_", map[string]int{"container": 2, "resource": 2}},
	{"container_network_", map[string]int{"interface": 2}},
	{"container_", map[string]int{"container": 2}},
}

const metricNameLabel = "__name__"

// known are values that labels have.
var known = map[string][]string{
	"mode":     {"idle", "user", "system", "iowait", "irq", "softirq", "nice", "steal"},
	"phase":    {"Running", "Pending", "Failed", "Succeeded", "Unknown"},
	"resource": {"cpu", "memory"},
	"le":       {"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"},
	"device":   {"eth0", "lo", "docker0", "veth1a2b3c", "sda"},
}

// series are the label sets of all metrics.
func (f *cluster) series() (all []labels.Labels) {
	for _, name := range slices.Sorted(maps.Keys(f.metrics)) {
		for node := range f.nodes {
			base := map[string]string{"__name__": name, "cluster": "west", "job": "exporter", "instance": fmt.Sprintf("10.0.0.%d:9100", node), "node": fmt.Sprintf("node-%d", node)}
			pods := 1
			ofPods := strings.HasPrefix(name, "kube_pod_") || strings.HasPrefix(name, "container_")
			if ofPods {
				pods = f.pods
			}
			for pod := range pods {
				if ofPods {
					base["namespace"], base["pod"], base["image"] = fmt.Sprintf("team-%d", pod%5), fmt.Sprintf("app-%d-%d", node, pod), "registry/app:1"
				}
				all = f.product(all, base, f.variants(name))
			}
		}
	}
	return all
}

// variant is a label, with the values that series have.
type variant struct {
	name   string
	values []string
}

func (f *cluster) variants(name string) (all []variant) {
	counts := map[string]int{}
	for _, d := range dimensions {
		if strings.HasPrefix(name, d.prefix) {
			maps.Copy(counts, d.labels)
			break
		}
	}
	if strings.HasSuffix(name, "_bucket") {
		counts["le"] = len(known["le"])
	}
	for label, values := range f.metrics[name] {
		counts[label] = max(counts[label], len(values), 1)
	}
	for _, label := range slices.Sorted(maps.Keys(counts)) {
		switch label {
		case "cluster", "job", "instance", "node", "namespace", "pod", "image":
			continue
		}
		v := variant{label, slices.Clone(f.metrics[name][label])}
		for i := 0; len(v.values) < counts[label]; i++ {
			value := label + "-" + strconv.Itoa(i)
			if i < len(known[label]) {
				value = known[label][i]
			}
			if !slices.Contains(v.values, value) {
				v.values = append(v.values, value)
			}
		}
		all = append(all, v)
	}
	return all
}

// product appends base with each combination of variants.
func (*cluster) product(all []labels.Labels, base map[string]string, variants []variant) []labels.Labels {
	if len(variants) == 0 {
		return append(all, labels.FromMap(base))
	}
	with := maps.Clone(base)
	for _, value := range variants[0].values {
		with[variants[0].name] = value
		all = (*cluster)(nil).product(all, with, variants[1:])
	}
	return all
}

// exposition is what is written of some series.
type exposition struct {
	series              []labels.Labels
	startMs, intervalMs int64
	samples             int // of each
}

// What a request has: samples of a series, and series.
const (
	exposedSamples = 20
	exposedSeries  = 100
)

// write sends all, in the order of time.
func (e *exposition) write(ctx context.Context, url string) error {
	generators := make([]values, len(e.series))
	for i, ls := range e.series {
		generators[i] = valuesOf(ls)
	}
	client := &http.Client{Timeout: time.Minute}
	for from := 0; from < e.samples; from += exposedSamples {
		n := min(exposedSamples, e.samples-from)
		for first := 0; first < len(e.series); first += exposedSeries {
			var body prompb.WriteRequest
			for i := first; i < min(first+exposedSeries, len(e.series)); i++ {
				s := prompb.TimeSeries{Labels: prompb.FromLabels(e.series[i], nil)}
				for k := range n {
					s.Samples = append(s.Samples, prompb.Sample{Timestamp: e.startMs + int64(from+k)*e.intervalMs, Value: generators[i].value()})
				}
				body.Timeseries = append(body.Timeseries, s)
			}
			if err := post(ctx, client, url, &body); err != nil {
				return err
			}
		}
	}
	return nil
}

// valuesOf makes values as the metric's name has them: counters grow, the rest walks.
func valuesOf(ls labels.Labels) values {
	h := fnv.New64a()
	h.Write([]byte(ls.String()))
	name := ls.Get(metricNameLabel)
	classes := []uint8{walk2, walk3, noise2, noise3, smallConstant, largeConstant}
	for _, end := range []string{"_total", "_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, end) {
			classes = []uint8{rareCounter, requestCounter, byteCounter}
		}
	}
	l := load{seed: h.Sum64()}
	return l.values(int(classes[h.Sum64()%uint64(len(classes))]))
}

func post(ctx context.Context, client *http.Client, url string, body *prompb.WriteRequest) error {
	raw, err := body.Marshal()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(snappy.Encode(nil, raw)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 500))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}
