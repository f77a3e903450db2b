package cluster

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestSignAndVerify(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	keys := func(name string, secrets ...string) *Keys {
		var all [][]byte
		for _, s := range secrets {
			all = append(all, []byte(s))
		}
		k, err := NewKeys(name, all, "X-Scope-OrgID")
		if err != nil {
			t.Fatal(err)
		}
		k.now = func() time.Time { return now }
		return k
	}
	const a, b = "the first secret there is", "the second secret there is"
	body := []byte("samples")
	request := func(k *Keys) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/write?x=1", bytes.NewReader(body))
		r.Header.Set("Content-Encoding", "identity")
		r.Header.Set("X-Scope-OrgID", "tenant")
		k.Sign(r, body)
		return r
	}
	k := keys("one", a)
	if err := k.Verify(request(k), body); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*http.Request){
		"the method":       func(r *http.Request) { r.Method = http.MethodPut },
		"the path":         func(r *http.Request) { r.URL.Path = "/api/v1/read" },
		"the query":        func(r *http.Request) { r.URL.RawQuery = "x=2" },
		"the encoding":     func(r *http.Request) { r.Header.Set("Content-Encoding", "snappy") },
		"the tenant":       func(r *http.Request) { r.Header.Set("X-Scope-OrgID", "other") },
		"one more tenant":  func(r *http.Request) { r.Header.Add("X-Scope-OrgID", "other") },
		"no tenant":        func(r *http.Request) { r.Header.Del("X-Scope-OrgID") },
		"a second header":  func(r *http.Request) { r.Header.Add(Header, r.Header.Get(Header)) },
		"another time":     func(r *http.Request) { r.Header.Set(Header, "1700000000001"+r.Header.Get(Header)[13:]) },
		"no signature":     func(r *http.Request) { r.Header.Set(Header, "1700000000000 ") },
		"garbage":          func(r *http.Request) { r.Header.Set(Header, "yes") },
		"an empty one":     func(r *http.Request) { r.Header.Set(Header, "") },
		"a long signature": func(r *http.Request) { r.Header.Set(Header, "1700000000000 "+strings.Repeat("A", 1<<20)) },
	} {
		r := request(k)
		change(r)
		if err := k.Verify(r, body); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := k.Verify(request(k), []byte("samplez")); !errors.Is(err, ErrForged) {
		t.Error("another body:", err)
	}
	r := request(k)
	r.Header.Del(Header)
	if err := k.Verify(r, body); !errors.Is(err, ErrNoHeader) {
		t.Error("no header:", err)
	}
	for name, other := range map[string]*Keys{"another secret": keys("one", b), "another name": keys("two", a), "none": keys("one")} {
		if err := k.Verify(request(other), body); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A value must not pass for the name of the next header.
	shift := httptest.NewRequest(http.MethodPost, "/x", nil)
	shift.Header.Set("Content-Type", "X-Scope-Orgid")
	k.Sign(shift, nil)
	shift.Header.Del("Content-Type")
	shift.Header.Set("X-Scope-OrgID", "X-Scope-Orgid")
	if err := k.Verify(shift, nil); !errors.Is(err, ErrForged) {
		t.Error("a value that was moved to another header:", err)
	}

	// A rotation: at each step members of the step before and after understand each other.
	steps := []*Keys{keys("one", a), keys("one", a, b), keys("one", b, a), keys("one", b)}
	for i := range steps[1:] {
		if err := errors.Join(steps[i].Verify(request(steps[i+1]), body), steps[i+1].Verify(request(steps[i]), body)); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}

	challenge := []byte("what nobody was asked before")
	if !steps[2].Proven(challenge, steps[1].Prove(challenge)) || !k.Proven(challenge, k.Prove(challenge)) || k.Proven(challenge, steps[3].Prove(challenge)) ||
		k.Proven([]byte("another"), k.Prove(challenge)) || k.Proven(challenge, nil) {
		t.Error("challenges are not answered by members, or by others")
	}

	for skew, want := range map[time.Duration]string{-3 * time.Minute: "it is 3m0s ahead of this clock", 3 * time.Minute: "it is 3m0s old"} {
		r := request(k)
		now = now.Add(skew)
		if err := k.Verify(r, body); !errors.Is(err, ErrClock) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v later: %v", skew, err)
		}
		now = now.Add(-skew)
	}
}

func TestKeysAreApart(t *testing.T) {
	k := testKeys(t, "a secret of a cluster")
	if bytes.Equal(k.gossip[0], k.sign[0]) || bytes.Equal(k.sign[0], k.series) {
		t.Error("two uses have one key")
	}
}

func TestReadSecrets(t *testing.T) {
	long := strings.Repeat("s", minSecretBytes)
	for file, want := range map[string]int{
		long: 1, long + "\n": 1, "\n " + long + "\r\n\n" + long + "2\n": 2, long + "\n" + long + "\n": 1,
		"": 0, "short\n": 0, long + "\n" + long + "2\n" + long + "3\n": 0, strings.Repeat("s", maxSecretBytes+1): 0,
		strings.Repeat("s", 3*maxSecretBytes): 0,
	} {
		s, err := ReadSecrets([]byte(file))
		if len(s) != want || (err == nil) != (want > 0) {
			t.Errorf("%.40q: %d secrets, error %v; want %d", file, len(s), err, want)
		}
		if err != nil && strings.Contains(err.Error(), "sss") {
			t.Error("the error shows the secret")
		}
	}
}
