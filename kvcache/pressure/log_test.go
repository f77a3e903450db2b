package pressure

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
)

// TestLogTellsWhatWasReturned: of a full cache the log has what the machine saw
// returned; of an empty one nothing, however often its budget falls.
func TestLogTellsWhatWasReturned(t *testing.T) {
	for _, full := range []bool{true, false} {
		m := newMachine(24*gib, square(4, 1000, 5)) // more at a time than a line is worth
		var log bytes.Buffer
		o := Options{Logger: slog.New(slog.NewJSONHandler(&log, nil))}
		if !full {
			o.Used, o.SetBudget = func() int64 { return 0 }, func(int64) {}
		}
		c := m.run(t, 20, o)
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
