package main

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

// --web.config.file is in exporter-toolkit's format and is checked and turned
// into a tls.Config by the toolkit. Serving is not left to it: it reads the file
// for each request and each handshake, so that a file which is broken for a
// moment fails all of them. Here what was read last and was right stays in force.

// webSettings is what the file, and those that it names, said.
type webSettings struct {
	users   map[string]string // bcrypt hashes by name; none: no passwords
	headers map[string]string // of every answer
	limiter *rate.Limiter     // nil: none
	limits  web.RateLimiterConfig
	tls     *tls.Config // nil: none
	files   []string    // that were read
}

// readWebSettings reads the file; an empty path means none of all that.
func readWebSettings(path string) (*webSettings, error) {
	s := &webSettings{}
	if path == "" {
		return s, nil
	}
	if err := web.Validate(path); err != nil { // all of it, certificates included
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := web.Config{ // with the toolkit's defaults
		TLSConfig:  web.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13},
		HTTPConfig: web.HTTPConfig{HTTP2: true},
	}
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return nil, err
	}
	c.TLSConfig.SetDirectory(filepath.Dir(path))
	s.files = []string{path}
	s.headers = c.HTTPConfig.Header
	s.users = make(map[string]string, len(c.Users))
	for name, hash := range c.Users {
		s.users[name] = string(hash)
	}
	if s.limits = c.RateLimiterConfig; s.limits.Interval != 0 {
		s.limiter = rate.NewLimiter(rate.Every(s.limits.Interval), s.limits.Burst)
	}
	if !c.TLSConfig.IsEnabled() {
		return s, nil
	}
	if s.tls, err = web.ConfigToTLSConfig(&c.TLSConfig); err != nil {
		return nil, err
	}
	certificate, err := s.tls.GetCertificate(nil) // would read the files at each handshake
	if err != nil {
		return nil, err
	}
	s.tls.Certificates, s.tls.GetCertificate = []tls.Certificate{*certificate}, nil
	s.tls.NextProtos = []string{"http/1.1"}
	if c.HTTPConfig.HTTP2 {
		s.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	for _, name := range []string{c.TLSConfig.TLSCertPath, c.TLSConfig.TLSKeyPath, c.TLSConfig.ClientCAs} {
		if name != "" {
			s.files = append(s.files, name)
		}
	}
	return s, nil
}

// webSecurity is the settings in force.
type webSecurity struct {
	settings atomic.Pointer[webSettings]

	// comparing bounds the processors that passwords take: one.
	comparing sync.Mutex
	mu        sync.Mutex
	known     map[[sha256.Size]byte]bool // whether a user's password was right, by all three
}

func newWebSecurity(s *webSettings) *webSecurity {
	w := &webSecurity{known: map[[sha256.Size]byte]bool{}}
	w.settings.Store(s)
	return w
}

// replace puts other settings in force.
func (w *webSecurity) replace(s *webSettings) error {
	was := w.settings.Load()
	if (was.tls == nil) != (s.tls == nil) {
		return fmt.Errorf("TLS is turned on and off by a restart only")
	}
	if s.limits == was.limits {
		s.limiter = was.limiter // with what was used up of it
	}
	w.settings.Store(s)
	return nil
}

// maxKnownPasswords bounds what is remembered. Comparing takes some 50 ms.
const maxKnownPasswords = 100

// nobodysHash is what the passwords of unknown users are compared with, so that
// how long an answer takes does not tell which names exist. It is of "fakepassword".
const nobodysHash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

// allows checks a password.
func (w *webSecurity) allows(s *webSettings, user, password string) bool {
	hash, exists := s.users[user]
	if !exists {
		hash = nobodysHash
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%d %s %d %s %s", len(user), user, len(hash), hash, password))
	w.mu.Lock()
	right, known := w.known[key]
	w.mu.Unlock()
	if !known {
		w.comparing.Lock()
		right = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
		w.comparing.Unlock()
		w.mu.Lock()
		for k := range w.known { // any will do
			if len(w.known) < maxKnownPasswords {
				break
			}
			delete(w.known, k)
		}
		w.known[key] = right
		w.mu.Unlock()
	}
	return right && exists
}

// probes are the paths that need no password: they say nothing but that the
// daemon is there, and a kubelet has none to give.
var probes = map[string]bool{"/-/healthy": true, "/-/ready": true}

// guard asks for passwords before next answers.
func (w *webSecurity) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		s := w.settings.Load()
		if s.limiter != nil && !s.limiter.Allow() {
			http.Error(out, http.StatusText(http.StatusTooManyRequests), http.StatusTooManyRequests)
			return
		}
		for k, v := range s.headers {
			out.Header().Set(k, v)
		}
		if len(s.users) > 0 && !probes[r.URL.Path] {
			user, password, given := r.BasicAuth()
			if !given || !w.allows(s, user, password) {
				out.Header().Set("WWW-Authenticate", "Basic")
				http.Error(out, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(out, r)
	})
}

// serve answers on l until the server is shut down.
func (w *webSecurity) serve(l net.Listener, s *plainServer) error {
	if w.settings.Load().tls == nil {
		return s.Serve(l)
	}
	s.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if c, ok := hello.Conn.(*limitedConn); ok {
				c.head.next() // the hello, of some 2 KiB, is no part of it
			}
			return w.settings.Load().tls, nil
		},
	}
	return s.ServeTLS(l, "", "")
}

// handshakeLog is what net/http logs to. Handshakes that fail are warned of now
// and then: it may be the certificate. Who only looks whether the port is open
// ends them, too, and says nothing; that, and all else, is for debugging.
type handshakeLog struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	last   time.Time // of a warning
	untold int       // failures since
}

// warnEvery is the least time between two warnings of failed handshakes.
const warnEvery = 10 * time.Second

// Write implements io.Writer for one line.
func (h *handshakeLog) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	from, failed := strings.CutPrefix(line, "http: TLS handshake error from ")
	if !failed || strings.HasSuffix(line, ": EOF") || strings.HasSuffix(line, "connection reset by peer") {
		h.log.Debug(line)
		return len(b), nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if now.Sub(h.last) < warnEvery {
		h.untold++
		return len(b), nil
	}
	from, why, _ := strings.Cut(from, ": ")
	h.log.Warn("A TLS handshake failed.", "from", from, "err", why, "more_since_the_last_warning", h.untold)
	h.last, h.untold = now, 0
	return len(b), nil
}
