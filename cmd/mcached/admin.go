package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// Admin actions change what the daemon does or cost it much. They are for
// people on the machine: others get 403 unless --web.enable-admin lets everyone
// act who may write.

// allowAdmin answers those who may not act. A proxy on this machine speaks for
// strangers, which its headers give away.
func (d *daemon) allowAdmin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		local := err == nil && peer.Addr().Unmap().IsLoopback()
		for _, h := range [...]string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
			local = local && r.Header.Get(h) == ""
		}
		if !local && !bool(d.live.Load().webAdmin) {
			http.Error(w, "mcached: admin actions are for clients on this machine; --web.enable-admin opens them to all", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// snapshotNews is the answer to POST /-/snapshot: what was written, or what was
// wrong; and that to GET /-/snapshot/progress: how far it is.
type snapshotNews struct {
	Bytes   int64   `json:"bytes"`
	Path    string  `json:"path,omitempty"`
	Series  uint64  `json:"series,omitempty"`
	Points  uint64  `json:"points,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// serveSnapshot writes a snapshot, and answers when that is done: 200 says that
// it is on the disk. Whoever asked may go; it is written all the same.
func (d *daemon) serveSnapshot(w http.ResponseWriter, _ *http.Request) {
	if d.snapshot == nil {
		http.Error(w, "mcached: there is nowhere to write a snapshot to: start the daemon with --snapshot.path", http.StatusConflict)
		return
	}
	if !d.saving.TryLock() {
		http.Error(w, "mcached: a snapshot is being written already", http.StatusConflict)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // it takes what it takes
	began := time.Now()
	n := snapshotNews{Path: d.snapshot.path}
	code := http.StatusOK
	st, err := d.saveSnapshot()
	d.saving.Unlock() // before anyone hears that it is done
	if n.Bytes, n.Series, n.Points, n.Seconds = st.Bytes, st.Series, st.Points, time.Since(began).Seconds(); err != nil {
		n.Error = err.Error()
		code = http.StatusInternalServerError
		d.log.Error("The snapshot was not written.", "path", n.Path, "err", err)
	}
	answerJSON(w, code, n)
}

// serveSnapshotProgress says how far the snapshot is that is being written, or how far
// the last one came.
func (d *daemon) serveSnapshotProgress(w http.ResponseWriter, _ *http.Request) {
	var n snapshotNews
	if d.snapshot != nil {
		n.Bytes = d.snapshot.written.Load()
	}
	answerJSON(w, http.StatusOK, n)
}

func answerJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and text only
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
}

// snapshotCommand is `mcached snapshot`.
func snapshotCommand(ctx context.Context, args []string, out, errOut io.Writer) error {
	app := kingpin.New("mcached snapshot", "Have a running daemon on this machine write its snapshot to --snapshot.path now, and wait for it.")
	var f apiFlags
	f.add(app, "1h")
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout.std())
	defer cancel()
	var bytes atomic.Int64
	began := time.Now()
	done := newProgress(errOut).follow("Writing the snapshot", func() string {
		return fmt.Sprintf("%s, %s", showBytes(float64(bytes.Load())), time.Since(began).Round(time.Second))
	})
	asking, stop := context.WithCancel(ctx)
	go func() { _ = every(asking, drawEvery, func() { f.askProgress(asking, &bytes) }) }()
	last, err := f.askSnapshot(ctx)
	stop()
	done()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %s series, %s samples, %s in %.1f s\n", printable(last.Path), short(float64(last.Series)), short(float64(last.Points)),
		showBytes(float64(last.Bytes)), last.Seconds)
	return err
}

// askSnapshot has a snapshot written and waits for it.
func (f *apiFlags) askSnapshot(ctx context.Context) (snapshotNews, error) {
	return f.news(ctx, http.MethodPost, "/-/snapshot")
}

// askProgress keeps bytes up to date, as far as the daemon tells.
func (f *apiFlags) askProgress(ctx context.Context, bytes *atomic.Int64) {
	if n, err := f.news(ctx, http.MethodGet, "/-/snapshot/progress"); err == nil {
		bytes.Store(n.Bytes)
	}
}

func (f *apiFlags) news(ctx context.Context, method, path string) (n snapshotNews, err error) {
	res, err := f.do(ctx, method, path, nil)
	if err != nil {
		return n, err
	}
	defer res.Body.Close()
	const maxNews = 64 << 10
	b, err := io.ReadAll(io.LimitReader(res.Body, maxNews))
	if err != nil {
		return n, fmt.Errorf("the daemon aborted: %w", err)
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, fmt.Errorf("%.100q is not of a snapshot", b)
	}
	return n, nil
}
