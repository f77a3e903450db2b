package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/run"
)

// Files that the daemon was started with are looked at every second and read
// again when they have changed. SIGHUP and POST /-/reload read them at once, and
// the command line with them: of an @file on it the flags that can change while
// the daemon runs do. What is wrong is warned of, and what was read before
// stays in force.

// source is something that was read from files.
type source struct {
	flag  string          // that names it
	files func() []string // that it was read from last
	read  func() error    // again; an error leaves all as it was

	broken bool   // what is there now was not taken
	seen   string // of the files when they were looked at last
	before string // in the round before that
	told   string // seen when a failure was last told
	inUse  string // digest of what is in force
}

// reloader reads the sources again.
type reloader struct {
	log    *slog.Logger
	reread func() (*config, error) // the command line
	// apply puts in force what of a command line is other than inForce has it,
	// and notes that there.
	apply func(inForce map[string]string, c *config) flagChanges

	mu      sync.Mutex // held while something is read
	sources []*source
	inForce map[string]string // flags as spelt
	// lastFailed is how much of the command line the last reload did not take.
	lastFailed int

	total, failed atomic.Uint64 // reloads that were asked for
	lastRight     atomic.Bool   // the last one, and what was read since, had no failure
	lastAt        atomic.Int64  // Unix ms of the last that was without failure
}

// reloadStats are for metrics.
type reloadStats struct {
	right         float64 // 1 or 0
	lastSuccess   float64 // Unix seconds
	total, failed float64
}

func (r *reloader) stats() (s reloadStats) {
	if r.lastRight.Load() {
		s.right = 1
	}
	s.lastSuccess = float64(r.lastAt.Load()) / 1000
	s.total, s.failed = float64(r.total.Load()), float64(r.failed.Load())
	return s
}

// flagChanges are what became of flags that are spelt differently now.
type flagChanges struct {
	changed, restart, failed []string
}

// reloadNews is the answer to POST /-/reload.
type reloadNews struct {
	Changed []string `json:"changed"` // what is other than before
	Restart []string `json:"restart"` // what would be, after a restart
	Failed  []string `json:"failed"`  // what could not be read, or was wrong
}

// watchEvery is how often files are looked at. They are read once they look the
// same twice, so that one of two that belong together is not read without the other.
const watchEvery = time.Second

func (r *reloader) add(s *source) {
	s.seen = look(s.files())
	s.before, s.inUse = s.seen, digest(s.files())
	r.sources = append(r.sources, s)
}

// watch is a round of looking at files.
func (r *reloader) watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sources {
		now := look(s.files())
		settled := now == s.before
		s.before = now
		if now == s.seen || !settled {
			continue
		}
		s.seen = now
		changed, err := s.again()
		if err != nil {
			r.tell(s, err)
			continue
		}
		s.broken = false
		r.lastRight.Store(r.lastFailed == 0 && !slices.ContainsFunc(r.sources, func(s *source) bool { return s.broken }))
		if changed {
			r.log.Info("Read again.", "flag", "--"+s.flag, "files", strings.Join(s.files(), ", "))
		}
	}
}

// reload is what SIGHUP and POST /-/reload ask for.
func (r *reloader) reload() reloadNews {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total.Add(1)
	news := reloadNews{Changed: []string{}, Restart: []string{}, Failed: []string{}}
	for _, s := range r.sources {
		s.seen = look(s.files())
		s.before = s.seen
		changed, err := s.again()
		if err != nil {
			s.told = "" // whoever asks is told again
			r.tell(s, err)
			news.Failed = append(news.Failed, fmt.Sprintf("--%s: %v", s.flag, err))
			continue
		}
		if s.broken = false; changed {
			news.Changed = append(news.Changed, fmt.Sprintf("--%s: %s", s.flag, strings.Join(s.files(), ", ")))
		}
	}
	r.lastFailed = 0
	if len(news.Failed) == 0 { // else the command line is wrong for the same reason
		r.rereadFlags(&news)
	}
	if len(news.Restart) > 0 {
		r.log.Warn("Some flags have changed that only a restart changes.", "flags", strings.Join(news.Restart, "; "))
	}
	what := "nothing"
	if len(news.Changed) > 0 {
		what = strings.Join(news.Changed, "; ")
	}
	right := len(news.Failed) == 0
	if r.lastRight.Store(right); right {
		r.log.Info("Reloaded.", "changed", what)
		r.lastAt.Store(time.Now().UnixMilli())
	} else {
		r.log.Info("Not all was reloaded.", "changed", what)
		r.failed.Add(1)
	}
	return news
}

// rereadFlags is the part of reload that looks at the command line.
func (r *reloader) rereadFlags(news *reloadNews) {
	c, err := r.reread()
	if err != nil {
		news.Failed, r.lastFailed = append(news.Failed, err.Error()), 1
		r.log.Warn("The command line was rejected; the previous settings stay in force.", "err", err)
		return
	}
	f := r.apply(r.inForce, c)
	news.Changed, news.Restart, news.Failed = append(news.Changed, f.changed...), append(news.Restart, f.restart...), append(news.Failed, f.failed...)
	if r.lastFailed = len(f.failed); r.lastFailed > 0 {
		r.log.Warn("Not all flags were taken.", "failed", strings.Join(f.failed, "; "))
	}
}

// again reads a source if its files have another content than what is in force.
func (s *source) again() (changed bool, err error) {
	now := digest(s.files())
	if now == s.inUse {
		s.told = ""
		return false, nil
	}
	if err := s.read(); err != nil {
		return false, err
	}
	s.inUse, s.told = digest(s.files()), "" // the files may be others
	s.seen = look(s.files())
	s.before = s.seen
	return true, nil
}

// tell warns of a file once for each time that it has changed.
func (r *reloader) tell(s *source, err error) {
	s.broken = true
	r.lastRight.Store(false)
	if s.told != s.seen {
		r.log.Warn("A file that has changed was rejected; its previous contents stay in force.", "flag", "--"+s.flag, "err", err)
		s.told = s.seen
	}
}

// look tells whether files may have changed: it differs then.
func look(files []string) string {
	var b strings.Builder
	for _, name := range files {
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d %d %d %v;", st.Dev, st.Ino, st.Size, st.Mode, st.Mtim)
	}
	return b.String()
}

// maxDigestBytes of a file are looked at: many times what certificates, passwords
// and configurations take.
const maxDigestBytes = 4 << 20

// digest is the same for the same content. What is no regular file, such as the
// pipe of a shell's <(command), can be read but once: it never changes.
func digest(files []string) string {
	h := sha256.New()
	for _, name := range files {
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			fmt.Fprintf(h, "%v;", err)
			continue
		}
		n, err := io.Copy(h, io.LimitReader(f, maxDigestBytes))
		_ = f.Close()
		fmt.Fprintf(h, "%s %d %v;", name, n, err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// openReload names what can be read again. It is the last part of open.
func (d *daemon) openReload() {
	c := d.config
	d.live.Store(c)
	d.reloader = &reloader{
		log: d.log, inForce: maps.Clone(c.flags), apply: d.applyFlags,
		reread: func() (*config, error) { return parseConfig(c.args) },
	}
	d.reloader.lastRight.Store(true)
	d.reloader.lastAt.Store(d.started.UnixMilli())
	if c.webConfigFile != "" {
		d.reloader.add(&source{
			flag:  "web.config.file",
			files: func() []string { return d.webSecurity.settings.Load().files },
			read: func() error {
				s, err := readWebSettings(c.webConfigFile)
				if err == nil {
					err = d.webSecurity.replace(s)
				}
				return err
			},
		})
	}
	if d.resp != nil && c.respPasswordFile != "" {
		d.reloader.add(&source{
			flag:  "resp.password-file",
			files: func() []string { return []string{c.respPasswordFile} },
			read: func() error {
				p, err := readPassword(c.respPasswordFile)
				if err == nil {
					err = d.resp.SetPassword(p)
				}
				return err
			},
		})
	}
	if d.resp != nil && c.respTLSCertFile != "" {
		d.reloader.add(&source{
			flag:  "resp.tls-cert-file",
			files: func() []string { return []string{c.respTLSCertFile, c.respTLSKeyFile} },
			read:  c.respCertificate.read,
		})
	}
	d.rereadUpstream()
	if f := &c.forward; d.forwarder != nil && f.httpConfigFile != "" {
		files := f.files
		d.reloader.add(&source{
			flag:  "forward.http-config-file",
			files: func() []string { return files },
			read: func() error {
				next := *f
				client, err := next.client()
				if err != nil {
					return err
				}
				files = next.files
				d.forwardBy.replace(client.Transport)
				return nil
			},
		})
	}
}

// addReloader adds the reloader as an actor. Signals are asked for before.
func (d *daemon) addReloader(g *run.Group, asked <-chan os.Signal) {
	d.addLoop(g, func(ctx context.Context) error {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-asked:
				notifyReloading()
				d.reloader.reload()
				notifyReady()
			case <-ticker.C:
				d.reloader.watch()
			}
		}
	})
}

// serveReload answers POST /-/reload.
func (d *daemon) serveReload(w http.ResponseWriter, _ *http.Request) {
	news := d.reloader.reload()
	b, err := json.Marshal(news)
	if err != nil {
		panic(err) // text only
	}
	w.Header().Set("Content-Type", "application/json")
	if len(news.Failed) > 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = w.Write(append(b, '\n')) // whoever asked may have gone
}

// catchSignals asks for those that would end the process by themselves, before
// anything is held that could be lost: SIGHUP, which is also what a terminal
// sends that closes, SIGUSR1, whether or not there is a snapshot to write, SIGPIPE,
// which a log that nobody reads any more would bring, and SIGUSR2, which asks for
// nothing.
func catchSignals() (hangup, user1 chan os.Signal) {
	hangup, user1 = make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	signal.Notify(user1, syscall.SIGUSR1)
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR2)
	return hangup, user1
}

// transport passes requests on to one that can be replaced.
type transport struct {
	atomic.Pointer[http.RoundTripper]
}

func newTransport(t http.RoundTripper) *transport {
	v := &transport{}
	v.Store(&t)
	return v
}

// replace leaves requests under way to the one before.
func (t *transport) replace(next http.RoundTripper) {
	old := *t.Swap(&next)
	if c, ok := old.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return (*t.Load()).RoundTrip(r)
}

// applicable are the flags that change while the daemon runs, by what puts them
// in force. Those in one group go together. d.live has the new ones by then.
func (d *daemon) applicable() []applicable {
	done := func(*config) error { return nil } // readers look at d.live
	return []applicable{
		{[]string{"bucket.max-series", "bucket.max-series-per-metric", "bucket.limits"}, func(c *config) error {
			return d.metrics.SetLimits(d.seriesLimits(c))
		}},
		{[]string{"memory.metrics-share", "memory.overflow-share", "memory.blobs-share", "memory.answers-share"}, func(c *config) error { return d.setShares(c.memoryShares) }},
		{[]string{"memory.size"}, func(c *config) error {
			if c.memorySize == 0 || d.config.memorySize == 0 {
				return errRestart
			}
			return d.setBudget(int64(c.memorySize))
		}},
		{[]string{"memory.heap-limit"}, func(c *config) error {
			d.heapLimit.Store(d.limitHeap(c))
			if d.resp != nil {
				d.resp.SetKeyLimits(d.keyLimits(c))
			}
			return d.admission.SetLimits(d.admissionLimits(c)) // which are a part of it
		}},
		{[]string{"forward.max-dirty-size"}, func(*config) error {
			d.boundDirty()
			return nil
		}},
		d.upstreamFlags(),
		{[]string{
			"remote-write.max-samples", "remote-write.max-body-size", "remote-write.max-decoded-size", "remote-write.max-new-series",
			"remote-write.max-labels", "remote-write.max-label-name-size", "remote-write.max-label-value-size", "remote-write.max-time-ahead",
			"remote-write.max-exemplars", "remote-write.max-exemplars-size", "remote-write.max-metadata", "remote-write.max-metadata-size",
			"resp.max-keys-size",
		}, func(c *config) error {
			d.writes.SetLimits(writeLimits(c))
			if d.resp != nil {
				d.resp.SetKeyLimits(d.keyLimits(c))
			}
			return d.admission.SetLimits(d.admissionLimits(c))
		}},
		{[]string{"query.timeout", "query.max-samples", "query.max-series", "query.max-body-size", "query.max-concurrency", "query.lookback-delta", "query.log-slower-than"}, func(c *config) error {
			d.queries.SetLimits(d.queryOptions(c))
			return nil
		}},
		{[]string{"admission.max-in-flight-size", "admission.max-requests"}, func(c *config) error {
			return d.admission.SetLimits(d.admissionLimits(c))
		}},
		{[]string{"resp.max-clients"}, func(c *config) error {
			if d.resp != nil {
				d.resp.SetMaxConnections(d.connectionsFor(c).resp)
			}
			return nil
		}},
		{[]string{"resp.idle-timeout"}, func(c *config) error {
			if d.resp != nil {
				d.resp.SetIdleTimeout(c.respIdleTimeout.std())
			}
			return nil
		}},
		{[]string{"web.enable-admin", "shutdown.timeout"}, done},
		{[]string{"log.level"}, func(c *config) error { return d.config.log.Level.Set(c.log.Level.String()) }},
	}
}

type applicable struct {
	flags []string
	apply func(c *config) error
}

// errRestart says that a flag cannot change in this way while the daemon runs.
var errRestart = errors.New("needs a restart")

// applyFlags puts in force what of a command line is other than inForce has it,
// and notes there what was. The rest is told again each time.
func (d *daemon) applyFlags(inForce map[string]string, c *config) (out flagChanges) {
	d.live.Store(c)
	changes := map[string]string{} // by flag
	for name, was := range inForce {
		if is := c.flags[name]; is != was {
			changes[name] = fmt.Sprintf("--%s from %q to %q", name, was, is)
		}
	}
	for _, a := range d.applicable() {
		var names, told []string
		for _, name := range a.flags {
			if t, ok := changes[name]; ok {
				names, told = append(names, name), append(told, t)
			}
		}
		if len(told) == 0 {
			continue
		}
		err := a.apply(c)
		if errors.Is(err, errRestart) {
			continue // with the others of that kind
		}
		for _, name := range names {
			delete(changes, name)
			if err == nil {
				inForce[name] = c.flags[name]
			}
		}
		if err != nil {
			out.failed = append(out.failed, fmt.Sprintf("%s: %v", strings.Join(told, ", "), err))
		} else {
			out.changed = append(out.changed, told...)
		}
	}
	for _, t := range changes {
		out.restart = append(out.restart, t)
	}
	if _, told := changes["forward.header"]; !told && !slices.Equal(d.config.forward.headers, c.forward.headers) {
		out.restart = append(out.restart, "--forward.header")
	}
	slices.Sort(out.changed)
	slices.Sort(out.restart)
	flags := maps.Clone(inForce)
	d.flags.Store(&flags)
	return out
}
