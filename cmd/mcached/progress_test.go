package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestProgressOnTerminal: the line is drawn again and again, makes way for what
// others print, and is gone in the end.
func TestProgressOnTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{out: &out, screen: true}
		n := 0
		done := p.follow("Working", func() string { n++; return fmt.Sprint(n) })
		time.Sleep(2*drawEvery + 1)
		synctest.Wait()
		if want := eraseLine + "Working: 1" + eraseLine + "Working: 2"; out.String() != want {
			t.Errorf("it drew %q, want %q", out.String(), want)
		}
		out.Reset()
		fmt.Fprintln(p, "a log line")
		if want := eraseLine + "a log line\nWorking: 2"; out.String() != want {
			t.Errorf("the line was not taken away for another: %q, want %q", out.String(), want)
		}
		out.Reset()
		done()
		fmt.Fprintln(p, "later")
		if want := eraseLine + "later\n"; out.String() != want {
			t.Errorf("it is not gone: %q, want %q", out.String(), want)
		}
	})
}

// TestProgressElsewhere: where there is no terminal nothing is drawn; work that
// takes long is logged now and then, and what is done soon is not.
func TestProgressElsewhere(t *testing.T) {
	for works, lines := range map[time.Duration]int{logEvery - 1: 0, 2*logEvery + 1: 2} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			p := newProgress(&out)
			p.log = slog.New(slog.NewTextHandler(p, nil))
			done := p.follow("Working", func() string { return "half of it" })
			time.Sleep(works)
			done()
			if n := strings.Count(out.String(), `msg=Working. progress="half of it"`+"\n"); n != lines || n != strings.Count(out.String(), "\n") || p.screen {
				t.Errorf("work of %v: it wrote %q, want %d lines", works, out.String(), lines)
			}
		})
	}
}
