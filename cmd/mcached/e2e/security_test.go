package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key, and
// returns their paths and a pool that trusts it.
func certificate(t testing.TB, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certFile, keyFile, pool = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	for path, content := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, pool
}

// TestE2ETLS: TLS and passwords on both ports, and nothing without them.
func TestE2ETLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, pool := certificate(t, dir)
	const user, password = "reader", "swordfish"
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	webConfig, passwordFile := filepath.Join(dir, "web.yml"), filepath.Join(dir, "password")
	for path, content := range map[string]string{
		webConfig:    fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\nbasic_auth_users: {%s: %q}\n", certFile, keyFile, user, hash),
		passwordFile: password + "\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, daemonBinary(t), "--web.listen-address=127.0.0.1:0", "--resp.listen-address=127.0.0.1:0", "--memory.size=16MiB",
		"--web.config.file="+webConfig, "--resp.tls-cert-file="+certFile, "--resp.tls-key-file="+keyFile, "--resp.password-file="+passwordFile, "--log.level=debug")
	var url, resp string
	eventually(t, "the daemon says where it listens", func() error {
		p.alive()
		u, r := urlInOutput.FindStringSubmatch(p.output()), respInOutput.FindStringSubmatch(p.output())
		if u == nil || r == nil {
			return fmt.Errorf("%q", p.output())
		}
		url, resp = u[1], net.JoinHostPort(r[1], r[2])
		return nil
	})
	if !strings.HasPrefix(url, "https://") {
		t.Errorf("it says to write to %s", url)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for _, c := range []struct {
		user, password string
		code           int
	}{{"", "", 401}, {user, "wrong", 401}, {"other", password, 401}, {user, password, 200}} {
		for _, path := range []string{"/api/v1/query?query=up", "/metrics", "/"} {
			req, err := http.NewRequest(http.MethodGet, url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.user != "" {
				req.SetBasicAuth(c.user, c.password)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.code {
				t.Errorf("%s as %q: %s, want %d", path, c.user, res.Status, c.code)
			}
		}
	}
	if res, err := http.Get(strings.Replace(url, "https://", "http://", 1)); err == nil {
		res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("without TLS: %s", res.Status)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := redis.NewClient(&redis.Options{Addr: resp, Password: password, TLSConfig: &tls.Config{RootCAs: pool}, ReadTimeout: patience})
	defer r.Close()
	if err := r.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Errorf("RESP over TLS: %v", err)
	}
	plain := redis.NewClient(&redis.Options{Addr: resp, Password: password, MaxRetries: -1, ReadTimeout: patience})
	defer plain.Close()
	if err := plain.Set(ctx, "k", "v", 0).Err(); err == nil {
		t.Error("RESP without TLS was served")
	}
	for _, secret := range []string{password, string(hash)} {
		if strings.Contains(p.output(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

// TestE2EBrowserCannotWrite: a page of someone else's, open in the browser of
// whoever runs a daemon on loopback, cannot put samples into it.
func TestE2EBrowserCannotWrite(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b := snappy.Encode(nil, body(t, oneSeries(time.Now().UnixMilli(), 1, "__name__", "planted")))
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		code, said, err := s.post(ctx, b, headers...)
		if err != nil || code != http.StatusForbidden {
			t.Errorf("%v: %d %q %v, want 403", headers, code, said, err)
		}
	}
	if v, err := s.instant("planted"); err != nil || len(v) != 0 {
		t.Errorf("planted: %v, %v", v, err)
	}
}

// TestE2EDebug: profiles are for those who asked for them.
func TestE2EDebug(t *testing.T) {
	t.Parallel()
	if err := startServer(t).get("/debug/pprof/", nil); err == nil {
		t.Error("profiles are served by default")
	}
	if err := startServer(t, "--web.enable-debug=true").get("/debug/pprof/goroutine?debug=1", nil); err != nil {
		t.Error(err)
	}
}

// TestE2ETenants: where the header is enabled it names the bucket; where it is
// not, it is no more than a header.
func TestE2ETenants(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, enabled := range []bool{true, false} {
		var flags []string
		if enabled {
			flags = append(flags, "--tenancy.header=X-Scope-OrgID")
		}
		s := startServer(t, flags...)
		b := snappy.Encode(nil, body(t, oneSeries(time.Now().UnixMilli(), 1, "__name__", "mine")))
		if code, said, err := s.post(ctx, b, "X-Scope-OrgID", "a"); err != nil || code != http.StatusNoContent {
			t.Fatalf("%d %q %v", code, said, err)
		}
		v, err := s.instant("mine") // without a header: the default bucket
		if err != nil || len(v) == 0 != enabled {
			t.Errorf("tenancy %v: the default bucket has %v, %v", enabled, v, err)
		}
	}
}
