package pressure

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"
)

// TestLogTellsWhatWasReturned: of a full cache the log has what the machine saw
// returned; of an empty one nothing, however often its budget falls.
func TestLogTellsWhatWasReturned(t *testing.T) {
	for _, full := range []bool{true, false} {
		m := newMachine(24*gib, square(4, 1000, 5)) // more at a time than a line is worth
		var log bytes.Buffer
		o, run := Options{Logger: slog.New(slog.NewJSONHandler(&log, nil))}, runEmpty
		if full {
			run = (*machine).run
		}
		c := run(m, t, 20, o)
		var returned int64
		for d := json.NewDecoder(bytes.NewReader(log.Bytes())); d.More(); {
			var line struct {
				Msg           string `json:"msg"`
				ReturnedBytes int64  `json:"returned_bytes"`
			}
			if err := d.Decode(&line); err != nil {
				t.Fatal(err)
			}
			if line.Msg == "Memory returned." {
				returned += line.ReturnedBytes
			}
		}
		switch fell := c.Stats().ReleasedBytes; {
		case fell < gib:
			t.Errorf("full=%v: the budget fell by %d bytes, so that nothing was tested", full, fell)
		case full && (returned < m.released/2 || returned > m.released):
			t.Errorf("%d bytes returned as logged, of %d that were", returned, m.released)
		case !full && log.Len() != 0:
			t.Errorf("a cache that had nothing to return logs %s", &log)
		}
	}
}

// runEmpty drives a controller of a cache that holds nothing.
func runEmpty(m *machine, t testing.TB, seconds float64, o Options) *Controller {
	t.Helper()
	o.FS = m.files
	o.Now = func() time.Time { return m.now }
	o.Used = func() int64 { return 0 }
	o.SetBudget = func(int64) {}
	end := m.now.Add(time.Duration(seconds * 1e9))
	o.Wait = func(_ context.Context, d time.Duration) bool {
		m.wait(d)
		return m.now.Before(end)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Run(t.Context())
	return c
}
