package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestAllowAdmin: clients of this machine may act, strangers may not, nor those
// for whom a proxy speaks; unless all may.
func TestAllowAdmin(t *testing.T) {
	acted := 0
	d := &daemon{}
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
			d.live.Store(&config{webAdmin: truth(all)})
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
