package main

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress says how far long work is: on a terminal in a line that is drawn
// again and again, elsewhere in a log record now and then. Its Write is for
// those who share the terminal: the line is erased before what they print.
type progress struct {
	log    *slog.Logger // for work that takes long where there is no terminal; may be nil
	screen bool         // out is a terminal

	mu   sync.Mutex
	out  io.Writer
	line string // on the screen now
}

// How often the line is drawn, and how often something is logged. Work that is
// done sooner shows nothing.
const (
	drawEvery = 200 * time.Millisecond
	logEvery  = 10 * time.Second
)

// newProgress shows on out, if that is a terminal.
func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, screen: ok && term.IsTerminal(int(f.Fd()))}
}

// eraseLine goes to the beginning of the line and takes away what is on it.
const eraseLine = "\r\x1b[K"

// Write prints above the line.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line == "" {
		return p.out.Write(b)
	}
	if _, err := io.WriteString(p.out, eraseLine); err != nil {
		return 0, err
	}
	n, err := p.out.Write(b)
	if err == nil {
		_, err = io.WriteString(p.out, p.line)
	}
	return n, err
}

func (p *progress) draw(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line = line
	_, _ = io.WriteString(p.out, eraseLine+line) // a terminal that has gone needs no picture
}

// follow shows work until done is called, which waits for the last of it.
func (p *progress) follow(what string, how func() string) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	interval := logEvery
	if p.screen {
		interval = drawEvery
	}
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for drawn := false; ; {
			select {
			case <-stop:
				if drawn {
					p.draw("")
				}
				return
			case <-ticker.C:
				if drawn = p.screen; drawn {
					p.draw(what + ": " + how())
				} else if p.log != nil {
					p.log.Info(what+".", "progress", how())
				}
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}
