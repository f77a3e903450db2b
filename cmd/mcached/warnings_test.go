package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func TestLastWarnings(t *testing.T) {
	kept := &lastWarnings{}
	log := slog.New(warningHandler{Handler: slog.NewTextHandler(io.Discard, nil), kept: kept})
	log.Info("all is well")
	log.With("client", "10.0.0.1").Warn("refused", "limit", 5)
	log.Error("failed", "err", strings.Repeat("ä", maxWarningBytes))
	got := kept.newest()
	if len(got) != 2 || got[1].Text != "refused client=10.0.0.1 limit=5" || !strings.HasPrefix(got[0].Text, "failed err=ää") || len(got[0].Text) > maxWarningBytes+len("…") {
		t.Errorf("%q", got)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for k := range 100 {
				log.Warn(fmt.Sprint(i, " ", k))
				kept.newest()
			}
		})
	}
	all.Wait()
	if got := kept.newest(); len(got) != maxWarnings {
		t.Errorf("%d are kept, want %d", len(got), maxWarnings)
	}
}
