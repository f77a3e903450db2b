package ingest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"mcached/ingest/admission"
)

// TestLongAnswersInPipelines: values that lie in a region and in parts, short ones
// and none in one pipeline, one by one, by MGET, silenced and in transactions, in a
// loop and on a goroutine of the connection's own.
func TestLongAnswersInPipelines(t *testing.T) {
	pool := newPool(t, admission.Options{MaxBytes: 256 << 20})
	region, parts := strings.Repeat("r", pieceBytes+50_000), strings.Repeat("p", 3*pieceBytes+7)
	exact := strings.Repeat("e", 4*pieceBytes-len("$524288\r\n")) // CRLF is in a piece of its own
	all := "*5\r\n" + bulk(region) + bulk(parts) + "$-1\r\n" + bulk("s") + bulk(exact)
	input, want := bulks("SET", "region", region)+bulks("SET", "parts", parts)+bulks("SET", "exact", exact)+bulks("SET", "short", "s"), strings.Repeat("+OK\r\n", 4)
	say := func(answer string, args ...string) { input += bulks(args...); want += answer }
	for range 2 {
		say(bulk("s"), "GET", "short")
		say(bulk(parts), "GET", "parts")
		say("$-1\r\n", "GET", "none")
		say(bulk(region), "GET", "region")
		say(bulk(exact), "GET", "exact")
		say("+PONG\r\n", "PING")
		say(all, "MGET", "region", "parts", "none", "short", "exact")
		say("", "CLIENT", "REPLY", "SKIP")
		say("", "GET", "parts")
		say(bulk(parts), "GET", "parts")
		say("+OK\r\n", "MULTI")
		say("+QUEUED\r\n", "GET", "parts")
		say("+QUEUED\r\n", "GET", "region")
		say("+QUEUED\r\n", "MGET", "region", "parts", "none", "short", "exact")
		say("*3\r\n"+bulk(parts)+bulk(region)+all, "EXEC")
		say(":"+itoa(int64(len(parts)))+"\r\n", "EVAL", "return #redis.call('get', KEYS[1])", "1", "parts")
	}
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprint("a goroutine of its own ", alone), func(t *testing.T) {
			s, addr := newServerOf(t, alone, func(o *Options) { o.Admission = pool })
			if n := s.o.Blobs.At(0).MaxValue(); n < len(region) || n >= len(parts) {
				t.Fatalf("regions take %d bytes: the values do not try both", n)
			}
			if got := talk(t, addr, input); got != want {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				t.Errorf("%d bytes, want %d; they differ at %d: %.40q, want %.40q", len(got), len(want), at, got[at:], want[at:])
			}
			nothingHeld(t, pool)
		})
	}
}

// TestLongAnswersAllocateNothing but what is lost of spares: a GET of 3 MiB had
// allocated them twice.
func TestLongAnswersAllocateNothing(t *testing.T) {
	_, addr := newServer(t, nil)
	large := strings.Repeat("v", 3<<20)
	c := dial(t, addr)
	r := bufio.NewReaderSize(c, 64<<10)
	answer := make([]byte, len(large)+len("$3145728\r\n\r\n"))
	get := func() {
		send(t, c, bulks("GET", "k"))
		if _, err := io.ReadFull(r, answer); err != nil || string(answer[10:len(answer)-2]) != large {
			t.Fatalf("%.20q %v", answer, err)
		}
	}
	send(t, c, bulks("SET", "k", large))
	if got, err := readReply(r); err != nil || got != "+OK\r\n" {
		t.Fatal(got, err)
	}
	get()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const times = 20
	for range times {
		get()
	}
	runtime.ReadMemStats(&after)
	if each := int(after.TotalAlloc-before.TotalAlloc) / times; each > len(large)/4 {
		t.Errorf("%d bytes are allocated for each GET of %d", each, len(large))
	}
}

// TestLongAnswersThatNobodyReads hold what is lent for them, and give it back when
// their client goes or is killed; who reads meanwhile gets what was stored.
func TestLongAnswersThatNobodyReads(t *testing.T) {
	region, parts := strings.Repeat("r", pieceBytes+50_000), strings.Repeat("p", 3<<20)
	for _, alone := range []bool{false, true} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("a goroutine of its own %v, killed %v", alone, killed), func(t *testing.T) {
				pool := newPool(t, admission.Options{MaxBytes: 32 << 20})
				s, addr := newServerOf(t, alone, func(o *Options) { o.Admission = pool })
				talk(t, addr, bulks("SET", "region", region)+bulks("SET", "parts", parts))
				c := dial(t, addr)
				send(t, c, strings.Repeat(bulks("GET", "region")+bulks("GET", "parts"), 20))
				waitFor(t, "answers to be held", func() bool { return pool.Stats().Bytes[admission.Read] > 0 })
				if got := talk(t, addr, bulks("GET", "parts")+bulks("GET", "region")); got != bulk(parts)+bulk(region) {
					t.Errorf("%d bytes beside a client that does not read", len(got))
				}
				if killed {
					talk(t, addr, bulks("CLIENT", "KILL", "ADDR", c.LocalAddr().String()))
				} else {
					c.Close()
				}
				waitFor(t, "the client to be gone", func() bool { return s.Stats().Connections == 0 })
				nothingHeld(t, pool)
			})
		}
	}
}

// TestSpares: what is kept of buffers is bounded whoever used how many, and goes
// when nobody needs it.
func TestSpares(t *testing.T) {
	var p spares
	seed := testSeed(t)
	rng := newRand(seed)
	var out [][]byte
	kept, dropped, again := 0, 0, 0
	for range 6000 {
		switch {
		case rng.IntN(40) == 0:
			p.reap()
		case len(out) > 0 && rng.IntN(2) == 0:
			i := rng.IntN(len(out))
			b, was := out[i], p.bytes
			out[i] = out[len(out)-1]
			out = out[:len(out)-1]
			if p.give(b); p.bytes > was {
				kept++
			} else {
				dropped++
			}
		default:
			n, was := bufferBytes<<rng.IntN(spareSizes+1)-rng.IntN(bufferBytes/2), p.bytes
			b := p.take(n)
			if len(b) < n || len(b) >= 2*n && len(b) > bufferBytes {
				t.Fatalf("seed %d: %d bytes for %d", seed, len(b), n)
			}
			if p.bytes < was {
				again++
			}
			if len(out) < 100 {
				out = append(out, b)
			}
		}
		sum := 0
		for size, free := range p.free {
			for _, b := range free {
				if len(b) != bufferBytes<<size {
					t.Fatalf("seed %d: %d bytes among those of size %d", seed, len(b), size)
				}
				sum += len(b)
			}
		}
		if sum != p.bytes || sum > spareBytes {
			t.Fatalf("seed %d: %d bytes are kept, %d are counted, the limit is %d", seed, sum, p.bytes, spareBytes)
		}
	}
	if min(kept, dropped, again) < 100 {
		t.Fatalf("%d kept, %d dropped, %d used again: this does not try much", kept, dropped, again)
	}
	p.reap()
	if p.reap(); p.bytes != 0 {
		t.Errorf("%d bytes are left when nobody needs any", p.bytes)
	}
}

// TestOneLargeCommandEach: many connections that have sent one command of 1 MiB, all
// at the same time, and stay, leave no more than spareBytes behind.
func TestOneLargeCommandEach(t *testing.T) {
	s, addr := newServer(t, nil)
	const clients = 48
	conns := make([]net.Conn, clients)
	command := bulks("SET", "k", strings.Repeat("v", 1<<20-100))
	for i := range conns {
		conns[i] = dial(t, addr)
		send(t, conns[i], command[:len(command)-1])
	}
	for _, c := range conns {
		send(t, c, "\n")
		expect(t, c, "+OK\r\n")
	}
	s.spares.mu.Lock()
	if kept := s.spares.bytes; kept > spareBytes {
		t.Errorf("%d bytes are kept, the limit is %d", kept, spareBytes)
	}
	s.spares.mu.Unlock()
	waitFor(t, "nothing to be kept", func() bool {
		s.spares.mu.Lock()
		defer s.spares.mu.Unlock()
		return s.spares.bytes == 0
	})
}

// TestLargeCommandsTakeSpares sends a command of 3 MB, and the beginning of another: that
// goes on in the buffer that the first has left, where it grew by steps.
func TestLargeCommandsTakeSpares(t *testing.T) {
	s, addr := newServer(t, nil)
	large := func() int {
		s.spares.mu.Lock()
		defer s.spares.mu.Unlock()
		s.spares.least = [spareSizes]int{} // none is let go of meanwhile
		return len(s.spares.free[spareSizes-1])
	}
	c := newAsker(t, addr)
	value := strings.Repeat("v", 3<<20)
	c.want("+OK\r\n", "SET", "k", value)
	waitFor(t, "a spare buffer", func() bool { return large() == 1 })
	command := bulks("SET", "k", value)
	send(t, c.c, command[:2*bufferBytes])
	waitFor(t, "it to be taken", func() bool { return large() == 0 })
	send(t, c.c, command[2*bufferBytes:])
	c.told("+OK\r\n")
}
