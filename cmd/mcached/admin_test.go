package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAllowAdmin: clients of this machine may act, strangers may not, nor those
// for whom a proxy speaks; unless all may.
func TestAllowAdmin(t *testing.T) {
	acted := 0
	d := &daemon{config: &config{}}
	h := d.allowAdmin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { acted++ }))
	for _, c := range []struct {
		peer, header string
		may          bool
	}{
		{"127.0.0.1:1234", "", true}, {"[::1]:1234", "", true}, {"127.3.2.1:1", "", true}, {"[::ffff:127.0.0.1]:1", "", true},
		{"10.0.0.1:1234", "", false}, {"[2001:db8::1]:1", "", false}, {"", "", false}, {"@", "", false},
		{"127.0.0.1:1234", "X-Forwarded-For", false}, {"127.0.0.1:1234", "Forwarded", false}, {"[::1]:1", "Via", false}, {"[::1]:1", "X-Real-IP", false},
	} {
		for _, all := range []bool{false, true} {
			d.config.webAdmin = truth(all)
			before := acted
			r := httptest.NewRequest(http.MethodPost, "/-/snapshot", nil)
			r.RemoteAddr = c.peer
			if c.header != "" {
				r.Header.Set(c.header, "10.0.0.1")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if may := c.may || all; (acted > before) != may || (w.Code == http.StatusOK) != may {
				t.Errorf("%+v, open to all %v: %d", c, all, w.Code)
			}
		}
	}
}

// TestE2ESnapshotCommand: a snapshot is written when it is asked for, and the
// command says what, or why not.
func TestE2ESnapshotCommand(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "snapshot")
	s := startServer(t, "--snapshot.path="+path, "--self-scrape.interval=1s")
	eventually(t, "there is something to write", func() error {
		if s.metric(`mcached_series{bucket="default"}`) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	run := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := dispatch(append([]string{"snapshot"}, args...), &out, &errs)
		return code, out.String(), errs.String()
	}
	code, out, errs := run("--url=" + s.url)
	if code != exitOK || errs != "" || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, path+": ") || strings.Contains(out, " 0 series") {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}

	// A directory in its place cannot be replaced.
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := run("--url=" + s.url); code != exitError || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, path) {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if err := errors.Join(os.RemoveAll(path)); err != nil {
		t.Fatal(err)
	}

	// Neither a browser's page nor a proxy's client has one written; reading does not write.
	for _, c := range []struct {
		method, header, value string
		code                  int
	}{
		{http.MethodPost, "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{http.MethodPost, "X-Forwarded-For", "203.0.113.7", http.StatusForbidden},
		{http.MethodGet, "X-Nothing", "", http.StatusNotFound},
	} {
		req, err := http.NewRequest(c.method, s.url+"/-/snapshot", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(c.header, c.value)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.code && res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%+v: %s", c, res.Status)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a snapshot was written: %v", err)
	}

	none := startServer(t)
	if code, _, errs := run("--url=" + none.url); code != exitError || !strings.Contains(errs, "--snapshot.path") {
		t.Errorf("without a path: code %d, %q", code, errs)
	}
}
