package ingest

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

// TestAddsInPipelines wants of pipelines of TS.ADD and TS.MADD, in order and
// out of it, what the same commands say and leave behind one by one.
func TestAddsInPipelines(t *testing.T) {
	rnd := newRand(5)
	piped, single := newSession(t, nil), newSession(t, nil)
	answers := func(c *conn, inputs ...string) string {
		var out strings.Builder
		c.nc = writer{w: &out}
		for _, in := range inputs {
			c.feed([]byte(in))
		}
		return out.String()
	}
	clock := 1000
	for pipeline := range 300 {
		var commands []string
		for range 1 + rnd.IntN(100) {
			clock += rnd.IntN(3)
			at, value := clock, fmt.Sprint(rnd.IntN(100))
			switch rnd.IntN(40) {
			case 0:
				at -= rnd.IntN(30) // late, or a duplicate
			case 1:
				value = "x"
			}
			k := fmt.Sprint("k", rnd.IntN(6))
			switch rnd.IntN(30) {
			case 0:
				commands = append(commands, bulks("TS.MADD", k, fmt.Sprint(at), value, "k1", fmt.Sprint(at+1), "1", "none", "5", "5", "k1", fmt.Sprint(at+2), "2"))
			case 1:
				commands = append(commands, bulks("TS.ADD", k, fmt.Sprint(at), value, "ON_DUPLICATE", "SUM"))
			case 2:
				commands = append(commands, bulks("TS.ALTER", k, "LABELS", "a", fmt.Sprint(clock)))
			case 3:
				commands = append(commands, bulks("DEL", k))
			case 4:
				commands = append(commands, bulks("TS.GET", k))
			default:
				commands = append(commands, bulks("TS.ADD", k, fmt.Sprint(at), value))
			}
		}
		got, want := answers(piped, strings.Join(commands, "")), answers(single, commands...)
		if got != want {
			t.Fatalf("pipeline %d: %q\nanswers %q\nwant    %q", pipeline, commands, got, want)
		}
	}
	for i := range 6 {
		read := bulks("TS.RANGE", fmt.Sprint("k", i), "-", "+")
		if got, want := answers(piped, read), answers(single, read); got != want {
			t.Errorf("k%d holds %q, want %q", i, got, want)
		}
	}
	if piped.failed != single.failed || piped.commands != single.commands {
		t.Errorf("%d commands, %d failed; want %d and %d", piped.commands, piped.failed, single.commands, single.failed)
	}
	words := func(s string) (b [][]byte) {
		for w := range strings.FieldsSeq(s) {
			b = append(b, []byte(w))
		}
		return b
	}
	answers(piped, bulks("TS.ADD", "a", "1", "1")+bulks("TS.ADD", "b", "1", "1"))
	piped.takeOutput()
	if n := piped.addRun(words("a b b a"), words("2 2 3 3"), words("1 1 1 1"), tsAdds); n != 3 {
		t.Errorf("a run of %d, want 3: the fourth has to wait for its own key", n)
	}
	if n := piped.addRun(words("a b none"), words("9 9 9"), words("1 1 1"), tsAdds); n != 2 {
		t.Errorf("a run of %d, want 2: the third has no key", n)
	}
	piped.freeOutput()
}

// writer is a socket whose answers are kept.
type writer struct {
	sink
	w io.Writer
}

func (w writer) Write(b []byte) (int, error) { return w.w.Write(b) }

// TestAddsOfManyClients has pipelines lock the same keys in different orders.
func TestAddsOfManyClients(t *testing.T) {
	_, addr := newServer(t, nil)
	const clients, rounds, keys = 4, 100, 8
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			c := dial(t, addr)
			for round := range rounds {
				var in, want strings.Builder
				for i := range keys {
					k := fmt.Sprint("k", []int{i, keys - 1 - i}[client%2])
					at := round*clients + client
					in.WriteString(bulks("TS.ADD", k, fmt.Sprint(at), "1"))
					fmt.Fprintf(&want, ":%d\r\n", at)
				}
				send(t, c, in.String())
				expect(t, c, want.String())
			}
		})
	}
	wg.Wait()
	for i := range keys {
		got := short(t, converse(t, addr, fmt.Sprintf("TS.RANGE k%d - + AGGREGATION sum 1000000", i))[0])
		if want := fmt.Sprintf("[[0 %d]]", clients*rounds); got != want {
			t.Errorf("k%d: got %s, want %s", i, got, want)
		}
	}
}
