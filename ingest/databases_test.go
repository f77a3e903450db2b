package ingest

import (
	"bufio"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestDatabasesAreSeparate has clients of a loop write and read the same keys in
// databases of their own, one request at a time, so that requests of several are
// gathered, and by pipelines.
func TestDatabasesAreSeparate(t *testing.T) {
	_, addr := newServer(t, nil)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := dial(t, addr)
			r := bufio.NewReader(c)
			db := n % 4
			say := func(line, want string) {
				if _, err := c.Write([]byte(line)); err != nil {
					t.Error(err)
					return
				}
				got := ""
				for len(got) < len(want) {
					reply, err := readReply(r)
					if err != nil {
						t.Error(err)
						return
					}
					got += reply
				}
				if got != want {
					t.Errorf("database %d: %q: %q, want %q", db, line, got, want)
				}
			}
			say(bulks("SELECT", fmt.Sprint(db)), "+OK\r\n")
			for range 300 {
				say(bulks("SET", "k", fmt.Sprint(db)), "+OK\r\n")
				say(bulks("GET", "k"), fmt.Sprintf("$1\r\n%d\r\n", db))
			}
			say(strings.Repeat(bulks("SET", "k", fmt.Sprint(db)), 5)+strings.Repeat(bulks("GET", "k"), 5),
				strings.Repeat("+OK\r\n", 5)+strings.Repeat(fmt.Sprintf("$1\r\n%d\r\n", db), 5))
		}()
	}
	wg.Wait()
}

// TestWhatTellsOfDatabases: each has a line of INFO, and clients tell theirs.
func TestWhatTellsOfDatabases(t *testing.T) {
	_, addr := newServer(t, nil)
	got := talk(t, addr, "SET a 1\r\nSELECT 7\r\nSET b 1\r\nSET c 1 EX 1000\r\nINFO keyspace\r\nCLIENT INFO\r\nCLIENT LIST\r\nRESET\r\nCLIENT INFO\r\n")
	for _, want := range []string{"db0:keys=1,expires=0,avg_ttl=0\r\n", "db7:keys=2,expires=1,avg_ttl=", "db=7", "db=0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if strings.Count(got, "db=7") != 2 {
		t.Errorf("got %q", got)
	}
}

// TestSeriesAreInDatabase0 and are not touched from others.
func TestSeriesAreInDatabase0(t *testing.T) {
	_, addr := newServer(t, nil)
	got := talk(t, addr, "TS.ADD s 1 1\r\nSELECT 1\r\nTS.ADD s 2 2\r\nTS.ADD s 3 3\r\nTS.GET s\r\nEXISTS s\r\nDEL s\r\nTYPE s\r\nFLUSHDB\r\nSELECT 0\r\nTS.GET s\r\n")
	refused := "-" + errSeriesDB + "\r\n"
	if want := ":1\r\n+OK\r\n" + refused + refused + refused + ":0\r\n:0\r\n+none\r\n+OK\r\n+OK\r\n*2\r\n:1\r\n+1\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
