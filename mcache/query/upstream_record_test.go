package query

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRecordingGivesUp: how many series are to come tells early that an answer is
// too long, and nothing but its length does if that is not known, or near it.
func TestRecordingGivesUp(t *testing.T) {
	a, _, _ := remembering(t)
	s := &matrixSeries{floats: []byte(`[1795000000,"1"]` + strings.Repeat(`,[1795000000,"1"]`, 49))}
	a.upstream.maxText = 20 * len(s.floats)
	for series, want := range map[int]int{0: 21, 20: 21, 40: 21, 41: 3, 1000: 3} {
		rec := (&recall{u: a.upstream, grid: gridOf{1795000000000, 15_000, 1}, windows: &windows{}, settled: 1}).record(span{from: 0, to: 1})
		rec.series = series
		n := 0
		for ; !rec.spoilt.Load() && n < 100; n++ {
			rec.add(s)
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
	if n := a.upstream.recorder.text.Load(); n != 0 {
		t.Errorf("%d bytes of text are held", n)
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
		if held, _ := p.read(); held != 0 || a.upstream.recorder.text.Load() != 0 {
			t.Errorf("of %d bytes %d are held, %d of text", room, held, a.upstream.recorder.text.Load())
		}
	}
	if kept == 0 || kept == 6 {
		t.Errorf("%d of 6 were recorded", kept)
	}
}

// TestRecordingAlongside: a long answer is recorded while it is written, one
// series after the other; a stop in the middle ends that, and not the answer.
func TestRecordingAlongside(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		a, f, m := remembering(t)
		for i := range 60 {
			f.names = append(f.names, fmt.Sprintf("m%03d", i))
		}
		want := f.matrix(t0-150_000_000, t0-30_000, 15_000, 0)
		if len(want) < recordAhead*5/4 {
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

// TestShortDecimal: a number is read so that it is written the same again, and
// nearly all short ones are.
func TestShortDecimal(t *testing.T) {
	same := func(text string) bool {
		t.Helper()
		f, ok := shortDecimal([]byte(text))
		if !ok {
			return false
		}
		if want, err := strconv.ParseFloat(text, 64); err != nil || math.Float64bits(f) != math.Float64bits(want) || string(appendFloat(nil, f)) != text {
			t.Errorf("%q is read as %v: %v, %v, written %s", text, f, want, err, appendFloat(nil, f))
		}
		return true
	}
	rnd, read := rand.New(rand.NewPCG(17, 3)), 0
	for range 200_000 {
		f := math.Round(rnd.NormFloat64()*math.Pow10(rnd.IntN(12))) / math.Pow10(rnd.IntN(9))
		text := appendFloat(nil, f)
		if same(string(text)) {
			read++
		}
		for range 3 { // what is no such number, mostly
			const odd = "0123456789.-+eN "
			spoilt := bytes.Clone(text)
			spoilt[rnd.IntN(len(spoilt))] = odd[rnd.IntN(len(odd))]
			same(string(spoilt))
		}
	}
	if read < 150_000 {
		t.Errorf("%d of 200,000 are read", read)
	}
	for text, want := range map[string]bool{
		"": false, "-": false, ".": false, "-0": false, "0.0": false, "00": false, "01": false, "1.": false, ".5": false, "1.50": false, "NaN": false, "+Inf": false, "1e5": false,
		"0.0000001": false, "9999999999999999": false, "1234567890123456": false, strings.Repeat("1", 100): false,
		"0": true, "-1": true, "0.000001": true, "999999999999999": true, "-0.5": true, "0.1": true, "-12345678901.2345": true,
	} {
		if same(text) != want {
			t.Errorf("%q is read: %v", text, !want)
		}
	}
}
