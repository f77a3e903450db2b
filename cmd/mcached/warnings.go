package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// maxWarnings is how many of the log's last warnings the status page can show.
const maxWarnings = 20

// maxWarningBytes bounds the text of one.
const maxWarningBytes = 500

// loggedWarning is a line of the log, as /api/v1/status/self has it.
type loggedWarning struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// lastWarnings keeps the last warnings and errors that were logged. It is safe
// for concurrent use.
type lastWarnings struct {
	mu   sync.Mutex
	list []loggedWarning // the oldest first
}

// newest returns a copy of them, the newest first.
func (l *lastWarnings) newest() []loggedWarning {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]loggedWarning, 0, len(l.list))
	for i := len(l.list) - 1; i >= 0; i-- {
		out = append(out, l.list[i])
	}
	return out
}

func (l *lastWarnings) add(w loggedWarning) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == maxWarnings {
		l.list = append(l.list[:0], l.list[1:]...)
	}
	l.list = append(l.list, w)
}

// warningHandler hands log records on, and keeps the text of warnings and errors.
type warningHandler struct {
	slog.Handler
	kept  *lastWarnings
	attrs []slog.Attr // what With added
}

func (h warningHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		var text strings.Builder
		text.WriteString(r.Message)
		add := func(a slog.Attr) bool {
			if text.Len() < maxWarningBytes {
				text.WriteString(" " + a.Key + "=" + a.Value.Resolve().String())
			}
			return true
		}
		for _, a := range h.attrs {
			add(a)
		}
		r.Attrs(add)
		said := text.String()
		if len(said) > maxWarningBytes {
			said = strings.ToValidUTF8(said[:maxWarningBytes], "") + "…"
		}
		h.kept.add(loggedWarning{r.Time, said})
	}
	return h.Handler.Handle(ctx, r)
}

func (h warningHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warningHandler{h.Handler.WithAttrs(attrs), h.kept, append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h warningHandler) WithGroup(name string) slog.Handler {
	return warningHandler{h.Handler.WithGroup(name), h.kept, h.attrs}
}
