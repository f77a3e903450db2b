package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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
		if !local && !bool(d.config.webAdmin) {
			http.Error(w, "mcached: admin actions are for clients on this machine; --web.enable-admin=true opens them to all", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// snapshotNews is a line of the answer to POST /-/snapshot: how far it is, and
// in the last one what was written, or what was wrong.
type snapshotNews struct {
	Bytes   int64   `json:"bytes"`
	Path    string  `json:"path,omitempty"`
	Series  uint64  `json:"series,omitempty"`
	Points  uint64  `json:"points,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Error   string  `json:"error,omitempty"`
	Done    bool    `json:"done"`
}

// serveSnapshot writes a snapshot, and a line of JSON every now and then.
func (d *daemon) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	if d.config.snapshotPath == "" {
		http.Error(w, "mcached: there is nowhere to write a snapshot to: start the daemon with --snapshot.path", http.StatusConflict)
		return
	}
	if !d.saving.TryLock() {
		http.Error(w, "mcached: a snapshot is being written already", http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	tell := func(n snapshotNews) {
		b, err := json.Marshal(n)
		if err != nil {
			panic(err) // numbers and text only
		}
		// Whoever asked may go; the snapshot is written all the same.
		_ = control.SetWriteDeadline(time.Now().Add(d.config.webReadTimeout.std()))
		_, _ = w.Write(append(b, '\n'))
		_ = control.Flush()
	}
	var bytes atomic.Int64
	began := time.Now()
	result := make(chan snapshotNews, 1)
	go func() {
		n := snapshotNews{Path: d.config.snapshotPath, Done: true}
		st, err := d.saveSnapshot(&bytes)
		d.saving.Unlock() // before anyone hears that it is done
		if n.Bytes, n.Series, n.Points = st.Bytes, st.Series, st.Points; err != nil {
			n.Error = err.Error()
			d.log.Error("The snapshot was not written.", "path", n.Path, "err", err)
		}
		n.Seconds = time.Since(began).Seconds()
		result <- n
	}()
	ticker := time.NewTicker(drawEvery)
	defer ticker.Stop()
	for {
		select {
		case n := <-result:
			tell(n)
			_ = control.SetWriteDeadline(time.Time{})
			return
		case <-ticker.C:
			tell(snapshotNews{Bytes: bytes.Load()})
		}
	}
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
	res, err := f.do(ctx, http.MethodPost, "/-/snapshot", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var bytes atomic.Int64
	began := time.Now()
	done := newProgress(errOut).follow("Writing the snapshot", func() string {
		return fmt.Sprintf("%s, %s", showBytes(float64(bytes.Load())), time.Since(began).Round(time.Second))
	})
	last, err := readNews(res.Body, &bytes)
	done()
	switch {
	case err != nil:
		return fmt.Errorf("the daemon broke off: %w", err)
	case last.Error != "":
		return errors.New(last.Error)
	}
	_, err = fmt.Fprintf(out, "%s: %s series, %s samples, %s in %.1f s\n", printable(last.Path), short(float64(last.Series)), short(float64(last.Points)),
		showBytes(float64(last.Bytes)), last.Seconds)
	return err
}

// readNews returns the last line of an answer, and keeps bytes up to date meanwhile.
func readNews(r io.Reader, bytes *atomic.Int64) (snapshotNews, error) {
	const maxLine = 64 << 10
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var n snapshotNews
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return n, fmt.Errorf("%.100q is not of a snapshot", lines.Text())
		}
		if n.Done {
			return n, nil
		}
		bytes.Store(n.Bytes)
	}
	if err := lines.Err(); err != nil {
		return snapshotNews{}, err
	}
	return snapshotNews{}, net.ErrClosed
}
