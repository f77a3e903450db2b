package query

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

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
	flags := a.o.Flags
	if flags == nil {
		flags = map[string]string{}
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
	var st tsdbStatus
	names, err := a.cache.LabelNames(bucket, nil, 0)
	if err != nil {
		return answer{}, err
	}
	var ids []mcache.SeriesID
	for _, name := range names {
		values, err := a.cache.LabelValues(bucket, name, nil, 0)
		if err != nil {
			return answer{}, err
		}
		bytes := 0
		for _, v := range values {
			bytes += len(v)
			if err := r.Context().Err(); err != nil {
				return answer{}, err
			}
			ids, err = a.cache.Select(bucket, []mcache.Matcher{{Type: mcache.MatchEqual, Name: name, Value: v}}, ids[:0])
			if err != nil {
				return answer{}, err
			}
			if name == labels.MetricName {
				st.SeriesCountByMetricName = append(st.SeriesCountByMetricName, cardinality{v, len(ids)})
				st.HeadStats.NumSeries += len(ids)
			}
			st.SeriesCountByLabelValuePair = append(st.SeriesCountByLabelValuePair, cardinality{name + "=" + v, len(ids)})
		}
		st.HeadStats.NumLabelPairs += len(values)
		st.LabelValueCountByLabelName = append(st.LabelValueCountByLabelName, cardinality{name, len(values)})
		st.MemoryInBytesByLabelName = append(st.MemoryInBytesByLabelName, cardinality{name, bytes})
	}
	for _, list := range [...]*[]cardinality{&st.SeriesCountByMetricName, &st.LabelValueCountByLabelName, &st.MemoryInBytesByLabelName, &st.SeriesCountByLabelValuePair} {
		slices.SortStableFunc(*list, func(a, b cardinality) int { return cmp.Compare(b.Value, a.Value) })
		*list = append([]cardinality{}, (*list)[:min(limit, len(*list))]...)
	}
	return answer{data: func(w *jsonWriter) { w.any(st) }}, nil
}
