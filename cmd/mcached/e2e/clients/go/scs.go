package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/alexedwards/scs/v2"
)

// visits has three requests of a visitor count 1, 2, 3.
func visits(store scs.Store) {
	sessions := scs.New()
	sessions.Store = store
	site := httptest.NewServer(sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := sessions.GetInt(r.Context(), "visits") + 1
		sessions.Put(r.Context(), "visits", n)
		fmt.Fprint(w, n)
	})))
	defer site.Close()
	jar, err := cookiejar.New(nil)
	check("a jar", "", "", err)
	visitor := &http.Client{Jar: jar}
	for n := 1; n <= 3; n++ {
		res, err := visitor.Get(site.URL)
		check("a visit", "", "", err)
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		check("visits", string(b), n, err)
	}
}
