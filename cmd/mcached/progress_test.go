package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// locked is a buffer that several may write to.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestProgressOnTerminal: the line is drawn again and again, makes way for what
// others print, and is gone in the end.
func TestProgressOnTerminal(t *testing.T) {
	var out locked
	p := &progress{out: &out, screen: true}
	n := 0
	done := p.follow("Working", func() string { n++; return fmt.Sprint(n) })
	eventually(t, "it is drawn twice", func() error {
		if strings.Count(out.String(), eraseLine+"Working: ") < 2 {
			return fmt.Errorf("%q", out.String())
		}
		return nil
	})
	if _, err := fmt.Fprintln(p, "a log line"); err != nil {
		t.Fatal(err)
	}
	done()
	said := out.String()
	if i := strings.Index(said, "a log line\nWorking: "); i < 0 || !strings.HasSuffix(said[:i], eraseLine) {
		t.Errorf("the line was not taken away for another: %q", said)
	}
	if !strings.HasSuffix(said, eraseLine) {
		t.Errorf("it is not gone: %q", said)
	}
	if _, err := fmt.Fprintln(p, "later"); err != nil || strings.HasSuffix(out.String(), eraseLine+"later\n") && strings.Count(out.String(), eraseLine) != strings.Count(said, eraseLine) {
		t.Errorf("%v: %q", err, out.String())
	}
}

// TestProgressElsewhere: where there is no terminal nothing is drawn, and what
// is done soon is not logged either.
func TestProgressElsewhere(t *testing.T) {
	var out locked
	p := newProgress(&out)
	p.log = slog.New(slog.NewTextHandler(p, nil))
	done := p.follow("Working", func() string { return "" })
	time.Sleep(2 * drawEvery)
	done()
	if out.String() != "" || p.screen {
		t.Errorf("%q", out.String())
	}
}
