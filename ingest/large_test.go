package ingest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mcached/ingest/admission"
)

// TestLargeValues are as any other to every command that knows strings.
func TestLargeValues(t *testing.T) {
	pool := newPool(t, admission.Options{MaxBytes: 256 << 20})
	s, addr := newServer(t, func(o *Options) { o.Admission = pool })
	value := func(n int, c byte) string { return strings.Repeat(string(c), n) }
	large := value(3<<20, 'v')
	if s.o.Blobs.At(0).MaxValue() >= len(large) {
		t.Fatal("the value is not large")
	}
	for _, c := range []struct {
		say  []string
		want string
	}{
		{[]string{"SET", "k", large}, "+OK\r\n"},
		{[]string{"GET", "k"}, bulk(large)},
		{[]string{"STRLEN", "k"}, ":3145728\r\n"},
		{[]string{"TYPE", "k"}, "+string\r\n"},
		{[]string{"OBJECT", "ENCODING", "k"}, "$3\r\nraw\r\n"},
		{[]string{"GETRANGE", "k", "-3", "-1"}, "$3\r\nvvv\r\n"},
		{[]string{"APPEND", "k", "w"}, ":3145729\r\n"},
		{[]string{"GETRANGE", "k", "-2", "-1"}, "$2\r\nvw\r\n"},
		{[]string{"SETRANGE", "k", "3145728", "xy"}, ":3145730\r\n"},
		{[]string{"GETRANGE", "k", "-3", "-1"}, "$3\r\nvxy\r\n"},
		{[]string{"GETRANGE", "k", "32760", "32775"}, "$16\r\n" + large[:16] + "\r\n"}, // of two parts
		{[]string{"GETRANGE", "k", "1", "-2"}, bulk(large[1:] + "x")},
		{[]string{"GETRANGE", "k", "5", "4"}, "$0\r\n\r\n"},
		{[]string{"EXPIRE", "k", "1000"}, ":1\r\n"},
		{[]string{"TTL", "k"}, ":1000\r\n"},
		{[]string{"PERSIST", "k"}, ":1\r\n"},
		{[]string{"TTL", "k"}, ":-1\r\n"},
		{[]string{"COPY", "k", "c"}, ":1\r\n"},
		{[]string{"RENAME", "c", "r"}, "+OK\r\n"},
		{[]string{"STRLEN", "r"}, ":3145730\r\n"},
		{[]string{"MOVE", "r", "1"}, ":1\r\n"},
		{[]string{"DBSIZE"}, ":1\r\n"},
		{[]string{"KEYS", "*"}, "*1\r\n$1\r\nk\r\n"},
		{[]string{"SCAN", "0", "COUNT", "1000"}, "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"},
		{[]string{"RANDOMKEY"}, "$1\r\nk\r\n"},
		{[]string{"HGET", "k", "f"}, "-" + errWrongType + "\r\n"},
		{[]string{"INCR", "k"}, "-" + errInteger + "\r\n"},
		{[]string{"SET", "short", "1"}, "+OK\r\n"},
		{[]string{"SET", "k", large, "XX", "GET"}, bulk(large + "xy")},
		{[]string{"MGET", "short", "k", "none", "k"}, "*4\r\n$1\r\n1\r\n" + bulk(large) + "$-1\r\n" + bulk(large)},
		{[]string{"MSET", "a", large, "b", "2", "k", "3"}, "+OK\r\n"},
		{[]string{"MGET", "a", "b", "k"}, "*3\r\n" + bulk(large) + "$1\r\n2\r\n$1\r\n3\r\n"},
		{[]string{"GETSET", "a", "0"}, bulk(large)},
		{[]string{"SETNX", "n", large}, ":1\r\n"},
		{[]string{"GETEX", "n", "EX", "100"}, bulk(large)},
		{[]string{"EVAL", "return #redis.call('get', KEYS[1])", "1", "n"}, ":3145728\r\n"},
		{[]string{"GETDEL", "n"}, bulk(large)},
		{[]string{"EXISTS", "n"}, ":0\r\n"},
		{[]string{"SETEX", "e", "100", large}, "+OK\r\n"},
		{[]string{"DEL", "e", "a", "b", "k", "short"}, ":5\r\n"},
		{[]string{"DBSIZE"}, ":0\r\n"},
		{[]string{"FLUSHALL"}, "+OK\r\n"},
	} {
		if got := talk(t, addr, bulks(c.say...)); got != c.want {
			t.Errorf("%.50q: %.100q (%d bytes), want %.100q (%d)", c.say, got, len(got), c.want, len(c.want))
		}
	}
	s.o.Blobs.At(0).Sweep()
	if st := s.o.Blobs.Stats(); st.LiveBytes != 0 {
		t.Errorf("%d bytes are left", st.LiveBytes)
	}
	nothingHeld(t, pool)
}

// TestLargeValuesOfClientsWithoutPipeline are gathered with others' requests.
func TestLargeValuesOfClientsWithoutPipeline(t *testing.T) {
	_, addr := newServer(t, nil)
	large := strings.Repeat("v", 1<<20)
	talk(t, addr, bulks("SET", "large", large)+bulks("SET", "short", "s"))
	done := make(chan struct{})
	for n := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			c := dial(t, addr)
			r := bufio.NewReader(c)
			key, want := "short", "$1\r\ns\r\n"
			if n == 0 {
				key, want = "large", bulk(large)
			}
			for range 50 {
				if _, err := io.WriteString(c, bulks("GET", key)); err != nil {
					t.Error(err)
					return
				}
				if got, err := readReply(r); err != nil || got != want {
					t.Errorf("%s: %d bytes, %v", key, len(got), err)
					return
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}

// TestWhatIsTooLongIsThrownAway however it comes, and what follows is run.
func TestWhatIsTooLongIsThrownAway(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprint("a goroutine of its own ", alone), func(t *testing.T) {
			_, addr := newServerOf(t, alone, func(o *Options) { o.MaxBulkBytes, o.Flags = 1000, map[string]string{"MaxBulkBytes": "--a.flag"} })
			long := strings.Repeat("x", 300_000)
			input := bulks("SET", "a", "1") + bulks("SET", "k", long) + bulks("GET", "a") + bulks("MSET", "b", long, "c", "2", "d", long, "e", "3") + bulks(long) +
				bulks("EXISTS", "b", "c", "d", "e", "k") + "MULTI\r\n" + bulks("SET", "k", long) + "EXEC\r\n" + "CLIENT REPLY SKIP\r\n" + bulks("SET", "k", long) + "PING\r\n"
			refused := "-ERR an argument of 300000 bytes is too long, the limit is 1000 (--a.flag)\r\n"
			want := "+OK\r\n" + refused + "$1\r\n1\r\n" + refused + refused + ":0\r\n+OK\r\n" + refused + "-EXECABORT Transaction discarded because of previous errors.\r\n+PONG\r\n"
			if got := talk(t, addr, input); got != want {
				t.Errorf("got %q", got)
			}
			// In pieces of any length.
			rng := rand.New(rand.NewPCG(1, uint64(len(want))))
			for range 5 {
				c := dial(t, addr)
				go func() {
					for b := []byte(input); len(b) > 0; {
						n := min(1+rng.IntN(1<<rng.IntN(18)), len(b))
						if _, err := c.Write(b[:n]); err != nil {
							return
						}
						b = b[n:]
					}
					_ = c.CloseWrite()
				}()
				got, err := io.ReadAll(c)
				if err != nil || string(got) != want {
					t.Fatalf("got %q %v", got, err)
				}
			}
		})
	}
}

// TestLargeValuesTakeRoomAsTheyCome: the length that a command announces takes
// nothing, and when there is no room the command is refused and the next one runs.
func TestLargeValuesTakeRoomAsTheyCome(t *testing.T) {
	pool := newPool(t, admission.Options{MaxBytes: 8 << 20, MaxInputBytes: 4 << 20})
	_, addr := newServer(t, func(o *Options) { o.Admission = pool })
	half := dial(t, addr)
	send(t, half, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8000000\r\n"+strings.Repeat("x", 100_000))
	eventually(t, "a part of it has come", func() error {
		if n := pool.Stats().Bytes[admission.Input]; n < 100_000 || n > 1<<20 {
			return fmt.Errorf("%d bytes are held", n)
		}
		return nil
	})
	if _, err := half.Write(bytes.Repeat([]byte("x"), 7_900_000)); err != nil {
		t.Fatal(err)
	}
	send(t, half, "\r\nPING\r\n")
	r := bufio.NewReader(half)
	refusal, err := readReply(r)
	if err != nil || !strings.HasPrefix(refusal, "-ERR needs ") && !strings.HasPrefix(refusal, "-BUSY ") {
		t.Fatalf("%q %v", refusal, err)
	}
	if got, err := readReply(r); err != nil || got != "+PONG\r\n" {
		t.Fatalf("%q %v", got, err)
	}
	half.Close()
	nothingHeld(t, pool)
}

// TestLargeValuesAreWholeOrNot: while memory is short, what is read was written.
func TestLargeValuesAreWholeOrNot(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.CommandTimeout = time.Minute })
	c := dial(t, addr)
	r := bufio.NewReader(c)
	hits, misses := 0, 0
	rng := rand.New(rand.NewPCG(5, 5))
	for range 60 {
		i := rng.IntN(12)
		want := strings.Repeat(string(rune('a'+i)), 1<<20+i*300_000)
		send(t, c, bulks("GET", fmt.Sprint("k", i)))
		switch got, err := readReply(r); {
		case err != nil:
			t.Fatal(err)
		case got == "$-1\r\n":
			misses++
			send(t, c, bulks("SET", fmt.Sprint("k", i), want))
			if got, err := readReply(r); err != nil || got != "+OK\r\n" {
				t.Fatalf("%q %v", got, err)
			}
		case got == bulk(want):
			hits++
		default:
			t.Fatalf("k%d: %d bytes that were not written", i, len(got))
		}
	}
	if hits < 10 || misses <= 12 {
		t.Errorf("%d hits, %d misses", hits, misses)
	}
}
