package query

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// TestRecordingGivesUp: how many series are to come tells early that an answer is
// too long, and nothing but its length does if that is not known, or near it.
func TestRecordingGivesUp(t *testing.T) {
	a, _, _ := remembering(t)
	s := matrixSeries{floats: []byte(`[1795000000,"1"]` + strings.Repeat(`,[1795000000,"1"]`, 49))}
	a.upstream.maxText = 20 * len(s.floats)
	for series, want := range map[int]int{0: 21, 20: 21, 40: 21, 41: 3, 1000: 3} {
		rec := testRecording(a)
		rec.series = series
		n := 0
		for ; !rec.spoilt.Load() && n < 100; n++ {
			rec.take(parcelOf(s))
		}
		rec.abandon()
		if n != want {
			t.Errorf("of %d series it gave up at number %d, not %d", series, n, want)
		}
	}
}

// slowMemory is memory that takes nothing until it may.
type slowMemory struct {
	answerMap
	may chan struct{}
}

func (s *slowMemory) Put(key, value []byte, ttl time.Duration) error {
	<-s.may
	return s.answerMap.Put(key, value, ttl)
}

// TestRecordedAfterwards: a client has its answer whole before anything of it is
// remembered.
func TestRecordedAfterwards(t *testing.T) {
	a, f, _ := remembering(t)
	m := &slowMemory{may: make(chan struct{})}
	o := *a.upstream.opts()
	o.Memory = m
	a.upstream.now.Store(&o)
	ask := func() { wantPanel(t, f, panelNow(t, a, -30_000, 0), -30_000, 0, sourceUpstream) }
	ask()
	if s := a.Stats(); s.UpstreamRecording != 1 || s.UpstreamKept != 0 || m.len() != 0 {
		t.Errorf("%+v", s)
	}
	close(m.may)
	recorded(t, a)
	if m.len() == 0 {
		t.Fatal("nothing is remembered")
	}
	f.requests()
	if ask(); len(f.requests()) != 0 {
		t.Error("it is asked again")
	}
}

// TestRecordingsAreBounded: of more at a time than there may be, the others are
// not remembered, and say so.
func TestRecordingsAreBounded(t *testing.T) {
	a, f, _ := remembering(t)
	m := &slowMemory{may: make(chan struct{})}
	o := *a.upstream.opts()
	o.Memory = m
	a.upstream.now.Store(&o)
	const more = 5
	for i := range int64(maxRecordings + more) {
		from, to := -30_000-1000*i, -1000*i
		wantPanel(t, f, panelNow(t, a, from, to), from, to, sourceUpstream)
	}
	if s := a.Stats(); s.UpstreamRecording != maxRecordings || s.UpstreamUnrecorded != more {
		t.Errorf("%d under way, %d not", s.UpstreamRecording, s.UpstreamUnrecorded)
	}
	close(m.may)
	recorded(t, a)
	if n := a.upstream.recorder.held.Load(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}

// TestRecordingNeedsRoom: what there is no room for is not remembered, and the
// answer is whole all the same; all that was lent is given back.
func TestRecordingNeedsRoom(t *testing.T) {
	kept := 0
	for _, room := range []int64{200 << 10, 300 << 10, 350 << 10, 500 << 10, 1 << 20, 4 << 20} {
		a, f, m := remembering(t)
		p := &purse{limit: room}
		a.o.Admission = p.open
		w := panelNow(t, a, -30_000, 0)
		recorded(t, a)
		s := a.Stats()
		switch {
		case w.Code != 200:
		case w.Body.String() != f.matrix(t0-30_000_000, t0, 15_000, 0):
			t.Errorf("room for %d: %.300s", room, w.Body)
		case (m.len() > 0) == (s.UpstreamUnrecorded > 0):
			t.Errorf("room for %d: %d extents, %d answers are not recorded", room, m.len(), s.UpstreamUnrecorded)
		case m.len() > 0:
			kept++
		}
		if held, _ := p.read(); held != 0 || a.upstream.recorder.held.Load() != 0 {
			t.Errorf("of %d bytes %d are held, and %d", room, held, a.upstream.recorder.held.Load())
		}
	}
	if kept == 0 || kept == 6 {
		t.Errorf("%d of 6 were recorded", kept)
	}
}

// TestRecordingAlongside: a long answer is recorded while it is written, one
// series after the other; a stop before ends that, and not the answer.
func TestRecordingAlongside(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		if stopped && testing.Short() {
			break // it is as long
		}
		a, f, m := remembering(t)
		for i := range 90 {
			f.names = append(f.names, fmt.Sprintf("m%03d", i))
		}
		want := f.matrix(t0-150_000_000, t0-30_000, 15_000, 0)
		a.upstream.recorder.ahead = 8
		if len(want) < 2*8*parcelBytes {
			t.Fatalf("%d bytes are not long", len(want))
		}
		if stopped {
			a.Stop()
		}
		for again := range 2 {
			w := panelNow(t, a, -150_000, -30)
			recorded(t, a)
			if w.Code != 200 || w.Body.String() != want {
				t.Fatalf("%d: %d bytes, want %d", w.Code, w.Body.Len(), len(want))
			}
			if n := len(f.requests()); !stopped && n != 1-again || stopped && n != 1 || (m.len() == 0) != stopped {
				t.Errorf("stopped %v, time %d: the store was asked %d times, %d extents", stopped, again, n, m.len())
			}
		}
	}
}

// parcelOf is one with some series.
func parcelOf(list ...matrixSeries) *parcel {
	b := &parcel{}
	for _, s := range list {
		b.text = append(append(b.text, s.floats...), s.histograms...)
		b.series = append(b.series, parcelSeries{s.labels, len(s.floats), len(s.histograms)})
		b.beside += parcelSeriesBytes + int64(s.labels.ByteSize())
	}
	return b
}

// testRecording is one of a step.
func testRecording(a *API) *recording {
	c := &recall{u: a.upstream, memory: &answerMap{}, grid: gridOf{1795000000000, 15_000, 1}, windows: &windows{}, settled: 1, lend: a.o.Admission}
	return c.record(span{from: 0, to: 1})
}

// TestRecordingStops: whenever a recording is stopped, what it held is given back,
// and nothing is held of what its client adds afterwards.
func TestRecordingStops(t *testing.T) {
	s := matrixSeries{floats: []byte(`[1795000000,"1"]`)}
	for i := range 40 {
		a, _, _ := remembering(t)
		p := &purse{limit: 1 << 30}
		a.o.Admission, a.upstream.recorder.ahead = p.open, 1
		rec := testRecording(a)
		rec.take(parcelOf(s))
		turns := a.upstream.recorder.turns
		for range cap(turns) { // so that the encoder is still there
			turns <- struct{}{}
		}
		rec.take(parcelOf(s))
		stopped := make(chan struct{})
		go func() { a.Stop(); close(stopped) }()
		<-rec.of.quit
		if i%2 == 0 {
			rec.keep(nil, nil)
		}
		for range cap(turns) {
			<-turns
		}
		<-stopped
		rec.spoilt.Store(false) // as a client finds it that has just looked
		rec.take(parcelOf(s))
		rec.abandon()
		if held, _ := p.read(); !rec.begun || held != 0 || rec.of.held.Load() != 0 || rec.of.under.Load() != 0 {
			t.Fatalf("begun %v, %d bytes are held, and %d, by %d", rec.begun, held, rec.of.held.Load(), rec.of.under.Load())
		}
	}
}

// TestRecordingOfAnyStrings: a string of a histogram is none of its brackets, whatever
// it says.
func TestRecordingOfAnyStrings(t *testing.T) {
	a, _, _ := remembering(t)
	rec := testRecording(a)
	defer rec.abandon()
	const object = `{"count":"}..[1810000000,","\"}{.................":"]}"}`
	got, ok := rec.encoder.split(nil, []byte(`[1795000000,`+object+`]`))
	if !ok || len(got) != 1 || got[0].step != 0 || string(got[0].text) != object || rec.encoder.size() > 4<<10 {
		t.Errorf("%v, %d points, %d bytes", ok, len(got), rec.encoder.size())
	}
}

// TestRecordingHoldsLabels: short series with long labels take what they take.
func TestRecordingHoldsLabels(t *testing.T) {
	a, _, _ := remembering(t)
	p := &purse{limit: 1 << 30}
	a.o.Admission = p.open
	rec := testRecording(a)
	const series, long = 1000, 10 << 10
	var all []matrixSeries
	for i := range series {
		if i > 0 && i%100 == 0 {
			rec.take(parcelOf(all...))
			all = nil
		}
		all = append(all, matrixSeries{labels: labels.FromStrings("l", fmt.Sprintf("%0*d", long, i)), floats: []byte(`[1795000000,"1"]`)})
	}
	rec.take(parcelOf(all...))
	if held, _ := p.read(); rec.spoilt.Load() || held < series*long {
		t.Errorf("%d bytes are held", held)
	}
	rec.keep(nil, nil)
	recorded(t, a)
	if held, _ := p.read(); held != 0 || a.Stats().UpstreamKept != 1 {
		t.Errorf("%d bytes are held in the end, %d steps are kept", held, a.Stats().UpstreamKept)
	}
}

// TestRememberedShare: what takes more than its part of the memory for answers is
// not remembered, and known to be too much.
func TestRememberedShare(t *testing.T) {
	for room, kept := range map[int64]bool{100 << 20: true, 40 << 10: false} {
		a, f, m := remembering(t)
		o := *a.upstream.opts()
		o.MemoryBytes = func() int64 { return room }
		a.upstream.now.Store(&o)
		for i := range 40 { // of which each takes 500 bytes an extent
			f.names = append(f.names, fmt.Sprintf("m%02d%0500d", i, i))
		}
		wantPanel(t, f, panel(t, a, -30_000, 0), -30_000, 0, sourceUpstream)
		if n := a.upstream.large.len(a.o.Now()); m.len() > 0 != kept || n > 0 == kept || a.Stats().UpstreamUnrecorded != 0 {
			t.Errorf("room for %d: %d extents, %d are too large", room, m.len(), n)
		}
	}
}
