package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/version"

	"mcached/mcache/query"
)

// What the status page and `mcached stats` show is this daemon's own: the
// registry as it is now, and the history that selfScraper keeps of it in a
// bucket of its own. What others write, be it the same metrics of this daemon
// as a Prometheus scrapes them, can neither change nor double it.

// selfBucket holds the history. The cache lets nobody else write to it.
const selfBucket = "mcached-self"

// selfPath is where its history is queried: a server of Prometheus' API below
// this path, so that http://host:9201/-/self is a data source as well.
const selfPath = "/-/self"

// selfAPI answers queries of the history.
func (d *daemon) selfAPI() http.Handler {
	o := d.queryOptions(d.config)
	o.DefaultBucket, o.SlowerThan = selfBucket, 0
	return http.StripPrefix(selfPath, query.NewAPI(d.metrics, o))
}

// keepSelf answers writers of other tenants who name the bucket of the daemon's own metrics.
func (d *daemon) keepSelf(next http.Handler) http.Handler {
	h := d.config.tenancyHeader
	if h == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(h) == selfBucket {
			http.Error(w, "mcached: the bucket "+selfBucket+" is kept for the daemon's own metrics; write to another", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// selfReading is the data of /api/v1/status/self: the daemon's registry now,
// in the form of an instant query's answer, with what is needed to read it.
type selfReading struct {
	Version    string          `json:"version"`
	Instance   string          `json:"instance"`
	Job        string          `json:"job"`
	StartTime  float64         `json:"startTime"`      // Unix seconds
	Interval   float64         `json:"scrapeInterval"` // seconds between two points of the history; 0: there is none
	ResultType string          `json:"resultType"`
	Result     []selfPoint     `json:"result"`
	Warnings   []loggedWarning `json:"warnings"` // of the log, the newest first
	// Help is what each metric means, by name, if it was asked for (help=true).
	Help map[string]string `json:"help,omitempty"`
}

type selfPoint struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"` // Unix seconds, and the value as text
}

// readSelf reads the registry, with what its metrics mean if help is asked for.
func (d *daemon) readSelf(now time.Time, help bool) (*selfReading, error) {
	families, err := d.registry.Gather()
	if err != nil {
		return nil, err
	}
	seconds := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	r := &selfReading{
		Version: version.Version, Instance: d.instance, Job: selfJob, StartTime: seconds(d.started), Interval: d.config.selfScrape.std().Seconds(),
		ResultType: "vector", Warnings: d.warned.newest(),
	}
	at := seconds(now)
	if help {
		r.Help = make(map[string]string, len(families))
	}
	for _, f := range families {
		if help {
			r.Help[f.GetName()] = f.GetHelp()
		}
		samplesOf(f, func(m *dto.Metric, name, extraName, extraValue string, v float64) {
			metric := map[string]string{"__name__": name}
			for _, l := range m.GetLabel() {
				metric[l.GetName()] = l.GetValue()
			}
			if extraName != "" {
				metric[extraName] = extraValue
			}
			r.Result = append(r.Result, selfPoint{metric, [2]any{at, strconv.FormatFloat(v, 'f', -1, 64)}})
		})
	}
	return r, nil
}

// serveSelf answers /api/v1/status/self.
func (d *daemon) serveSelf(w http.ResponseWriter, req *http.Request) {
	r, err := d.readSelf(time.Now(), req.FormValue("help") == "true")
	answer := map[string]any{"status": "success", "data": r}
	code := http.StatusOK
	if err != nil {
		code = http.StatusInternalServerError
		answer = map[string]any{"status": "error", "errorType": "internal", "error": strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		panic(err) // numbers and text only
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // a reader who has gone needs no answer
}
