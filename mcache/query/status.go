package query

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"mcached/mcache"
)

// BuildInfo is the answer to status/buildinfo. Clients take what they talk to
// for Prometheus of this version and ask for no more than that could answer;
// there must be no list of features, which would make it another product.
type BuildInfo struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Branch    string `json:"branch"`
	BuildUser string `json:"buildUser"`
	BuildDate string `json:"buildDate"`
	GoVersion string `json:"goVersion"`
}

func (a *API) buildInfo(*http.Request) (answer, error) {
	return answer{data: func(w *jsonWriter) { w.any(a.o.BuildInfo) }}, nil
}

func (a *API) config(*http.Request) (answer, error) {
	yaml := ""
	if a.o.Config != nil {
		yaml = a.o.Config()
	}
	return answer{data: func(w *jsonWriter) {
		w.raw(`{"yaml":`)
		w.escaped(yaml)
		w.raw(`}`)
	}}, nil
}

func (a *API) flags(*http.Request) (answer, error) {
	flags := map[string]string{}
	if a.o.Flags != nil {
		flags = a.o.Flags()
	}
	return answer{data: func(w *jsonWriter) { w.any(flags) }}, nil
}

// runtimeInfo is the answer to status/runtimeinfo, in Prometheus' order.
type runtimeInfo struct {
	StartTime           time.Time `json:"startTime"`
	CWD                 string    `json:"CWD"`
	Hostname            string    `json:"hostname"`
	ServerTime          time.Time `json:"serverTime"`
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"`
	CorruptionCount     int64     `json:"corruptionCount"`
	GoroutineCount      int       `json:"goroutineCount"`
	GOMAXPROCS          int       `json:"GOMAXPROCS"`
	GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
	GOGC                string    `json:"GOGC"`
	GODEBUG             string    `json:"GODEBUG"`
	StorageRetention    string    `json:"storageRetention"`
}

func (a *API) runtimeInfo(*http.Request) (answer, error) {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = fmt.Sprintf("<error retrieving current working directory: %v>", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = fmt.Sprintf("<error retrieving hostname: %v>", err)
	}
	info := runtimeInfo{
		StartTime:           a.started.UTC(),
		CWD:                 cwd,
		Hostname:            hostname,
		ServerTime:          a.o.Now().UTC(),
		ReloadConfigSuccess: true,
		LastConfigTime:      a.started.UTC(),
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
	}
	return answer{data: func(w *jsonWriter) { w.any(info) }}, nil
}

// tsdbStatus is the answer to status/tsdb, in Prometheus' order.
type tsdbStatus struct {
	HeadStats struct {
		NumSeries     int   `json:"numSeries"`
		NumLabelPairs int   `json:"numLabelPairs"`
		ChunkCount    int64 `json:"chunkCount"`
		MinTime       int64 `json:"minTime"`
		MaxTime       int64 `json:"maxTime"`
	} `json:"headStats"`
	SeriesCountByMetricName     []cardinality `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []cardinality `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []cardinality `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []cardinality `json:"seriesCountByLabelValuePair"`
	// Only with the parameter bytes=true, which Prometheus does not have.
	BytesByMetricName []cardinality `json:"memoryInBytesByMetricName,omitempty"`
	// Only with coverage=true: when the bucket has all that was written to it. An
	// interval that is being written to has no end.
	Coverage []coverage `json:"coverage,omitempty"`
}

type coverage struct {
	From time.Time  `json:"from"`
	To   *time.Time `json:"to,omitempty"`
}

type cardinality struct {
	Name  string `json:"name"`
	Value int    `json:"value"`
}

// tsdbStatus counts series and labels. Bounds on what it lists are Prometheus'.
func (a *API) tsdbStatus(r *http.Request) (answer, error) {
	const maxLimit = 10000
	limit := 10
	if s := r.FormValue("limit"); s != "" {
		var err error
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return answer{}, badData(errors.New("limit must be a positive number"))
		}
		if limit > maxLimit {
			return answer{}, badData(fmt.Errorf("limit must not exceed %d", maxLimit))
		}
	}
	if err := a.lookups.enter(r.Context()); err != nil {
		return answer{}, err
	}
	defer a.lookups.leave()
	bucket := a.bucket(r)
	source := a.sourceOf(bucket)
	found := source.Cardinality(bucket, limit)
	var st tsdbStatus
	st.HeadStats.NumSeries, st.HeadStats.NumLabelPairs = found.Series, found.Pairs
	walk := source.ChunkStats
	if r.FormValue("bytes") == "true" {
		walk = source.ChunkStatsByMetric
	}
	chunks := walk(bucket)
	st.HeadStats.ChunkCount, st.HeadStats.MinTime, st.HeadStats.MaxTime = int64(chunks.Chunks), chunks.MinTime, chunks.MaxTime
	st.BytesByMetricName = cardinalities(mcache.Top(chunks.BytesByMetric, limit))
	st.SeriesCountByMetricName = cardinalities(found.ByMetric)
	st.LabelValueCountByLabelName = cardinalities(found.ByLabel)
	st.MemoryInBytesByLabelName = cardinalities(found.BytesByLabel)
	st.SeriesCountByLabelValuePair = cardinalities(found.ByPair)
	if r.FormValue("coverage") == "true" {
		list, _ := a.intervals(bucket)
		for _, x := range list {
			c := coverage{From: time.UnixMilli(x.From).UTC()}
			if x.To != mcache.MaxTime {
				to := time.UnixMilli(x.To).UTC()
				c.To = &to
			}
			st.Coverage = append(st.Coverage, c)
		}
	}
	return answer{data: func(w *jsonWriter) { w.any(st) }}, nil
}

func cardinalities(counts []mcache.Count) []cardinality {
	out := make([]cardinality, len(counts))
	for i, c := range counts {
		out[i] = cardinality{c.Name, c.Count}
	}
	return out
}
