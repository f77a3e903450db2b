package promqltest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"mcached/mcache/query"
)

// memberSlots is enough for each of three members to own a third.
const memberSlots = 32

// memberStorage is three caches that are one.
type memberStorage struct {
	*query.Queryable
	copies int
	caches []*cacheStorage
	apis   []*query.API
	eras   []query.Era
}

func newMemberStorage(tb testing.TB, copies int, pushDown bool) *memberStorage {
	s := &memberStorage{copies: copies}
	names := []string{"0", "1", "2"}
	owners := query.NewOwners(names, memberSlots, s.owners)
	s.eras = []query.Era{query.NewEra(0, math.MinInt64, math.MaxInt64, owners)}
	for i := range names {
		s.caches = append(s.caches, newCacheStorage(tb, 1))
		now := func() time.Time { return time.UnixMilli(dataEnd) }
		s.apis = append(s.apis, query.NewAPIOfMembers(s.caches[i].cache, member{s, i}, query.FanOutOptions{NoPushDown: !pushDown, ReadTimeout: time.Hour},
			query.Options{DefaultBucket: bucket, Now: now}))
	}
	s.Queryable = query.NewQueryable(s.apis[0].FanOut(), bucket, query.QueryableOptions{})
	return s
}

func (s *memberStorage) owners(slot uint16) (list []uint16) {
	for k := range s.copies {
		list = append(list, (slot+uint16(k)*(1+slot/3%2))%3)
	}
	return list
}

func (s *memberStorage) Close() (err error) {
	for _, c := range s.caches {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (s *memberStorage) StartTime() (int64, error) { return 0, nil }

func (s *memberStorage) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return nil, errUnused
}

func (s *memberStorage) Appender(context.Context) storage.Appender { panic(errUnused) }

func (s *memberStorage) AppenderV2(context.Context) storage.AppenderV2 { return memberAppender{s} }

// memberAppender writes each series to its owners.
type memberAppender struct{ s *memberStorage }

func (a memberAppender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	for _, i := range a.s.owners(slotOf(ls)) {
		if _, err := (appender{a.s.caches[i]}).Append(ref, ls, st, t, v, h, fh, o); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (memberAppender) Commit() error   { return nil }
func (memberAppender) Rollback() error { return errUnused }

func slotOf(ls labels.Labels) uint16 {
	h := fnv.New32a()
	ls.Range(func(l labels.Label) {
		if l.Name != "le" && l.Name != "quantile" {
			fmt.Fprintf(h, "%q%q", l.Name, l.Value)
		}
	})
	return uint16(h.Sum32()*0x9e3779b9>>16) % memberSlots
}

// member is one of them, as its FanOut sees the others.
type member struct {
	s    *memberStorage
	self int
}

func (m member) Self() string { return fmt.Sprint(m.self) }

func (m member) Peers() (peers []query.Peer) {
	for i := range m.s.apis {
		if i != m.self {
			peers = append(peers, query.Peer{Name: fmt.Sprint(i), Address: fmt.Sprint(i)})
		}
	}
	return peers
}

func (m member) Eras(int64) []query.Era                 { return m.s.eras }
func (m member) Slot(_ string, ls labels.Labels) uint16 { return slotOf(ls) }
func (m member) Heard(query.Peer, error)                {}
func (m member) Verify(r *http.Request, _ []byte) error { return nil }

func (m member) Post(ctx context.Context, p query.Peer, path string, body []byte) (*http.Response, error) {
	w := httptest.NewRecorder()
	m.s.apis[p.Address[0]-'0'].ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body)))
	return w.Result(), nil
}

// TestScriptsOfMembers runs every evaluation of every script on three members. What
// the scripts check is merged; what the members compute is held against that.
func TestScriptsOfMembers(t *testing.T) {
	for _, copies := range []int{1, 2} {
		t.Run(fmt.Sprintf("copies=%d", copies), func(t *testing.T) {
			e := pushing{t: t, QueryEngine: promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)}
			var all []*memberStorage
			promqltest.RunBuiltinTestsWithStorage(t, &e, func(tb testing.TB) storage.Storage {
				e.s = newMemberStorage(tb, copies, true)
				all = append(all, e.s)
				return e.s
			})
			pushed := uint64(0)
			for _, s := range all {
				pushed += s.apis[0].FanOut().Stats().Pushed
			}
			t.Logf("%d range queries, %d of them by the members", e.compared, pushed)
			if e.compared < 1500 || pushed < 100 {
				t.Error("that shows too little")
			}
		})
	}
}

// pushing is an engine that has the members compute each range query as well.
type pushing struct {
	promql.QueryEngine
	t        testing.TB
	s        *memberStorage
	compared int
}

func (p *pushing) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	raw := query.NewAPIOfMembers(p.s.caches[0].cache, member{p.s, 0}, query.FanOutOptions{NoPushDown: true, ReadTimeout: time.Hour}, query.Options{DefaultBucket: bucket})
	params := url.Values{"query": {expr}, "start": {ms(start.UnixMilli())}, "end": {ms(end.UnixMilli())}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}}
	ask := func(h http.Handler) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/query_range?"+params.Encode(), nil))
		return w
	}
	if want := ask(raw); want.Code == http.StatusOK { // else it is of what has not been settled on
		p.compared++
		if got := ask(p.s.apis[0]); !sameAnswer(want, got, expr) {
			p.t.Errorf("%v\nmerged:   %.600s\ncomputed: %.600s", params, want.Body, got.Body)
		}
	}
	return p.QueryEngine.NewRangeQuery(ctx, q, o, expr, start, end, step)
}

// TestMembersArePrometheus asks Prometheus, and three members, the same.
func TestMembersArePrometheus(t *testing.T) {
	theirs := teststorage.New(t)
	t.Cleanup(func() { theirs.Close() })
	var all []*memberStorage
	appenders := []storage.AppenderV2{theirs.AppenderV2(t.Context())}
	for _, copies := range []int{1, 2} {
		for _, push := range []bool{true, false} {
			s := newMemberStorage(t, copies, push)
			t.Cleanup(func() { s.Close() })
			all = append(all, s)
			appenders = append(appenders, s.AppenderV2(t.Context()))
		}
	}
	write := func(ls labels.Labels, ts int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
		for _, app := range appenders {
			if _, err := app.Append(0, ls, 0, ts, v, h, fh, storage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeData(t, func(ls labels.Labels, ts int64, v float64) { write(ls, ts, v, nil, nil) })
	writeHistograms(write)
	if err := appenders[0].Commit(); err != nil {
		t.Fatal(err)
	}
	prom := prometheusAPI(theirs, theirs, settings{})
	asked, answered := 0, 0
	for i, e := range expressions() {
		for j, params := range []url.Values{
			{"query": {e}, "time": {ms(dataEnd)}},
			{"query": {e}, "start": {ms(dataStart - 60_000)}, "end": {ms(dataEnd + 400_000)}, "step": {"61.5"}},
			{"query": {e}, "start": {ms(dataStart + 600_000)}, "end": {ms(dataStart + 1_200_000)}, "step": {"15s"}},
		} {
			path := "query_range"
			if params.Has("time") {
				path = "query"
			}
			r := httptest.NewRequest(http.MethodGet, "/api/v1/"+path+"?"+params.Encode(), nil)
			want := httptest.NewRecorder()
			prom.ServeHTTP(want, r)
			for k, s := range all {
				if (i+j+k)%2 == 0 { // the others ask it of the next expression
					continue
				}
				got := httptest.NewRecorder()
				s.apis[(i+k)%3].ServeHTTP(got, r)
				asked++
				if got.Code == http.StatusOK {
					answered++
				}
				if !sameAnswer(want, got, e) {
					t.Errorf("%d copies, pushed %t: %s %v\nPrometheus: %.600s\nours:       %.600s", 1+k/2, k%2 == 0, path, params, want.Body, got.Body)
				}
			}
		}
	}
	st := all[2].apis[0].FanOut().Stats()
	t.Logf("%d asked, %d answered; of one member: %+v", asked, answered, st)
	if answered < 3000 || st.Pushed < 20 || st.Repaired+st.Failed > 0 {
		t.Errorf("that shows too little")
	}
}

// sameAnswer compares answers but for what depends on the order of series: the
// order of vectors, last digits of sums, which series an error names, and which
// of several equal ones topk keeps.
func sameAnswer(want, got *httptest.ResponseRecorder, expr string) bool {
	if want.Code != got.Code {
		return false
	}
	if want.Code != http.StatusOK {
		return want.Code == http.StatusUnprocessableEntity || want.Body.String() == got.Body.String()
	}
	var a, b map[string]any
	if json.Unmarshal(want.Body.Bytes(), &a) != nil || json.Unmarshal(got.Body.Bytes(), &b) != nil {
		return false
	}
	for _, answer := range []map[string]any{a, b} {
		for _, notes := range []string{"warnings", "infos"} {
			if list, ok := answer[notes].([]any); ok {
				slices.SortFunc(list, func(x, y any) int { return cmp.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
			}
		}
		data, _ := answer["data"].(map[string]any)
		if list, ok := data["result"].([]any); ok && data["resultType"] == "vector" && !strings.HasPrefix(expr, "sort") {
			slices.SortFunc(list, func(x, y any) int {
				return cmp.Compare(fmt.Sprint(x.(map[string]any)["metric"]), fmt.Sprint(y.(map[string]any)["metric"]))
			})
		}
	}
	return alike(a, b)
}

// alike compares what JSON has; numbers in texts may differ by rounding.
func alike(x, y any) bool {
	switch x := x.(type) {
	case map[string]any:
		y, ok := y.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if !alike(x[k], y[k]) {
				return false
			}
		}
		return true
	case []any:
		y, ok := y.([]any)
		return ok && slices.EqualFunc(x, y, alike)
	case string:
		y, ok := y.(string)
		if !ok || x == y {
			return ok
		}
		var f, g float64
		if n, _ := fmt.Sscan(x, &f); n != 1 {
			return false
		}
		if n, _ := fmt.Sscan(y, &g); n != 1 {
			return false
		}
		return math.Abs(f-g) <= 1e-9*max(math.Abs(f), math.Abs(g))
	}
	return x == y
}
