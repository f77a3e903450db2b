package ingest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mcached/ingest/cluster"
)

// TestCopiesModel kills, cuts, restarts and lets join, one at a time, while others
// write, and holds each value against what was answered.
func TestCopiesModel(t *testing.T) {
	seed := rand.Uint64()
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	copiesModel(t, seed, rounds)
}

func copiesModel(t *testing.T, seed uint64, rounds int) {
	const writers, keys = 3, 60
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := newFleet(t, 4)
	f.whole()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	steps := atomic.Int64{}
	for n := range writers {
		w := &modelWriter{t: t, c: f.client(), name: n, seed: seed, keys: make([]keyModel, keys)}
		wg.Go(func() {
			defer w.c.close()
			rnd := rand.New(rand.NewPCG(seed, uint64(n)+1))
			for {
				select {
				case <-stop:
					return
				default:
					w.step(rnd)
					steps.Add(1)
				}
			}
		})
	}
	more := func(n int64) { // until so many steps were made
		to := steps.Load() + n
		waitFor(t, "the writers go on", func() bool { return steps.Load() >= to || t.Failed() })
	}
	comes := func(name int) {
		n := f.join(name)
		f.tell()
		if rnd.IntN(2) == 0 {
			f.whole()
		}
		more(rnd.Int64N(200))
		f.ready(n)
		f.tell()
	}
	for range rounds {
		more(rnd.Int64N(300))
		switch name := rnd.IntN(f.names); rnd.IntN(4) {
		case 0: // is killed, and is noticed after a while
			f.kill(name)
			more(rnd.Int64N(20))
			f.tell()
			if rnd.IntN(3) > 0 {
				f.whole()
			}
			more(rnd.Int64N(200))
			comes(name)
		case 1: // is killed and back before others know
			f.kill(name)
			comes(name)
		case 2, 3: // is not reached by one other, or lost on the way
			a, b := f.live[name], f.live[(name+1+rnd.IntN(f.names-1))%f.names]
			between := func(from, to int) bool { return from == a && to == b || from == b && to == a }
			if rnd.IntN(2) == 0 {
				f.wire.set(func(from, to int) bool { return f.dead(from, to) || between(from, to) }, nil)
			} else {
				f.wire.set(f.dead, between)
			}
			more(rnd.Int64N(300))
			if rnd.IntN(2) == 0 { // and then the one that was passed over is to serve
				f.kill(name)
				f.tell()
				more(100)
				comes(name)
			}
			f.wire.set(f.dead, nil)
		}
		if rnd.IntN(3) > 0 {
			f.whole()
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	wg.Wait()
	adopted, voided := f.sum(func(st Stats) uint64 { return st.UnitsAdopted }), f.sum(func(st Stats) uint64 { return st.CopiesVoided })
	if rounds > 10 && (adopted == 0 || voided == 0) {
		t.Errorf("seed %d: too little happened", seed)
	}
	t.Logf("seed %d: %d steps, %d units adopted, %d dropped, %d sessions voided, %d keys sent", seed, steps.Load(), adopted,
		f.sum(func(st Stats) uint64 { return st.UnitsDropped }), voided, f.sum(func(st Stats) uint64 { return st.KeysCopied }))
}

// TestCopiesLiveOn kills a node: all that was answered is at its heirs.
func TestCopiesLiveOn(t *testing.T) {
	f, w, before := copiedFleet(t)
	f.kill(1)
	f.tell()
	waitFor(t, "units are adopted", func() bool { return f.sum(func(st Stats) uint64 { return st.UnitsAdopted }) > copyUnits/5 })
	f.served(w)
	if after := w.there(); after != before || before < 200 {
		t.Errorf("%d keys, and %d after a node was killed", before, after)
	}
}

// TestCopiesComeBack restarts one node after the other: each is sent the keys that it
// will serve before it does, and none is lost.
func TestCopiesComeBack(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	w, rnd := f.written()
	defer w.c.close()
	for name := range f.names {
		f.kill(name)
		f.tell()
		f.served(w)
		n := f.join(name)
		f.tell()
		waitFor(t, "it is promised units", func() bool { owed, _ := n.OwedKeys(); return owed > copyUnits/5 || n.copies.count.received.Load() > 0 })
		waitFor(t, "it has all that it is promised", func() bool { owed, _ := n.OwedKeys(); return owed == 0 })
		for range 300 {
			w.step(rnd)
		}
		before := w.there()
		f.ready(n)
		if name > 0 { // the others are the first to know, or it is
			for _, o := range f.nodes {
				if f.isLive(o.number) && (o == n) == (name == 1) {
					o.SetCluster(f.view(o.number))
				}
			}
			if name == 1 {
				waitFor(t, "it has taken its units", func() bool { return n.Stats().UnitsAdopted > 0 })
			}
		}
		f.tell()
		f.served(w)
		if after := w.there(); after != before || before < 150 {
			t.Errorf("%d keys, and %d after node %d is back", before, after, name)
		}
		f.whole()
		if st := n.Stats(); st.UnitsDropped > 0 || st.UnitsAdopted < copyUnits/5 {
			t.Errorf("node %d adopted %d units and dropped %d", name, st.UnitsAdopted, st.UnitsDropped)
		}
	}
}

// TestCopiesPassedOver has an heir not answer while keys are written and deleted, and
// the origin killed then, or when the heir has been sent all of it anew.
func TestCopiesPassedOver(t *testing.T) {
	for _, healed := range []bool{false, true} {
		f := newFleet(t, 3)
		f.whole()
		w := &modelWriter{t: t, c: f.client(), keys: make([]keyModel, 300)}
		defer w.c.close()
		write := func(v string, args ...any) {
			for i := range w.keys {
				if i%3 == 1 || v == "" && i%3 == 0 {
					continue // they are hashes to read, or stay
				}
				_, err := w.c.do(w.key(i), append([]any{args[0], w.key(i)}, args[1:]...)...)
				if w.keys[i].written(v, err); err != nil {
					t.Fatal(err)
				}
			}
		}
		write("old", "set", "old")
		f.wire.set(nil, func(from, to int) bool { return from == 0 && to == 1 })
		write("new", "set", "new")
		write("", "del")
		if f.sum(func(st Stats) uint64 { return st.CopiesVoided }) == 0 {
			t.Error("nobody was passed over")
		}
		if healed {
			f.wire.set(nil, nil)
			f.whole()
		}
		f.kill(0)
		f.tell()
		f.served(w)
		n := 0
		for i := range w.keys {
			if i%3 != 1 && w.read(i) {
				n++
			}
		}
		if n < 50 || healed && n != 100 {
			t.Error(n, "of 100 keys are left; healed:", healed)
		}
	}
}

// No part of an answer, however long it is, is written before the heir has what the
// command did.
func TestCopiesLongAnswers(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	v := f.nodes[0].view()
	key := ""
	for i := 0; key == ""; i++ {
		if k := fmt.Sprint("long", i); v.servedBy(cluster.KeySlot([]byte(k))) == 0 {
			key = k
		}
	}
	nc, err := net.Dial("tcp", f.nodes[0].address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	const members, memberBytes = 20, 5000
	text, add := "", []string{"SADD", key}
	for i := range members {
		m := fmt.Sprintf("%0*d", memberBytes, i)
		text, add = text+m, append(add, m)
	}
	br := bufio.NewReader(nc)
	send := func(args []string) {
		var cmd [][]byte
		for _, a := range args {
			cmd = append(cmd, []byte(a))
		}
		_, _ = nc.Write(appendCommand(nil, cmd))
	}
	answer := func(what []string) []byte {
		t.Helper()
		b, err := readAnswer(br, nil, 1<<20)
		if err != nil || b[0] == '-' {
			t.Fatalf("%.40q: %.100q, %v", what, b, err)
		}
		return b
	}
	set := []string{"SET", key, text}
	for _, c := range []struct{ fill, write []string }{
		{add, []string{"SPOP", key, strconv.Itoa(members)}},
		{set, []string{"GETDEL", key}},
		{set, []string{"SET", key, "new", "GET"}},
		{set, []string{"EVAL", "return redis.call('getdel', KEYS[1])", "1", key}},
	} {
		for _, args := range [][]string{{"DEL", key}, c.fill} {
			send(args)
			answer(args)
		}
		f.whole()
		voided := f.nodes[0].Stats().CopiesVoided
		f.wire.set(nil, func(from, to int) bool { return from == 0 }) // neither the heir nor a witness is told
		send(c.write)
		waitFor(t, "the heir was waited for", func() bool { return f.nodes[0].Stats().CopiesVoided > voided })
		// What was written by now is here.
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT); n > 0 || err != syscall.EAGAIN {
				t.Errorf("%.40q is answered, or its connection has ended, and nobody has what it did: %v", c.write, err)
			}
		})
		f.wire.set(nil, nil)
		if b := answer(c.write); len(b) < len(text) {
			t.Errorf("%.40q: %.100q", c.write, b)
		}
	}
}

// What was written is not answered when another member has taken its units meanwhile, not
// if it was more keys than are noted either.
func TestCopiesTakenOfMany(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	n := f.nodes[0]
	k, v := n.copies, n.view()
	c := &conn{srv: n.Server}
	for i, noted := 0, 0; noted <= changedKeys; i++ {
		if key := fmt.Sprint(i); v.servedBy(cluster.KeySlot([]byte(key))) == 0 {
			c.noteKey([]byte(key))
			noted++
		}
	}
	if !c.changes.all || len(c.changes.routes) != 2 {
		t.Fatalf("of all keys: %v, of %d sessions", c.changes.all, len(c.changes.routes))
	}
	taken := c.changes.routes[0]
	taken.lose()
	waitFor(t, "it is forgotten", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		_, there := k.out[taken]
		return !there
	})
	if k.send(c.changes) {
		t.Error("it is answered")
	}
}

// An heir that is slow all the time is waited for longer than one that never was, within
// a bound, and no longer when it is quick again.
func TestCopiesPatience(t *testing.T) {
	o := &outgoing{k: &copies{answer: heirAnswer}}
	for _, c := range []struct{ took, want time.Duration }{
		{0, heirAnswer},
		{heirAnswer / heirTimes / 2, heirAnswer},
		{heirAnswer / 4, 2 * heirAnswer},
		{heirAnswer, heirMost},
		{time.Hour, heirMost},
		{time.Millisecond, heirAnswer},
	} {
		for range 300 {
			o.answered(c.took)
		}
		if got := o.patience(); got < c.want-time.Millisecond || got > c.want+time.Millisecond {
			t.Errorf("waits %v for one that takes %v, want %v", got, c.took, c.want)
		}
	}
	slow := &outgoing{k: &copies{answer: 1}} // which has no connection to end
	slow.took.Store(int64(heirMost))
	call := &peerCall{done: make(chan struct{}), reply: []byte("+OK")}
	time.AfterFunc(time.Millisecond, func() { close(call.done) })
	if err := slow.wait(call); err != nil || slow.took.Load() >= int64(heirMost) {
		t.Errorf("%v, after %v on average", err, time.Duration(slow.took.Load()))
	}
}

// However long values are, what clients write waits for one message of a fill at the most.
func TestCopiesFillLong(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	n := f.nodes[0]
	v := n.view()
	r := redis.NewClient(&redis.Options{Addr: n.address})
	defer r.Close()
	long := strings.Repeat("0123456789abcdef", copyBatchBytes/16)
	for i, left := 0, 6; left > 0; i++ {
		if key := fmt.Sprint("long", i); slices.Equal(v.ownersOf(cluster.KeySlot([]byte(key))), []uint16{0, 1}) {
			left--
			if err := r.Set(context.Background(), key, long, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.wire.most.Store(copyBatchBytes / 2)
	if !n.copies.endAll(nil) {
		t.Fatal("the sessions do not end")
	}
	p, was, most := n.peerFor(v.Nodes[1].address(), peerCopies), n.Stats().KeysCopied, 0
	waitFor(t, "it is tried to fill another one, and that once more", func() bool {
		p.mu.Lock()
		most = max(most, len(p.waiting))
		p.mu.Unlock()
		return n.Stats().KeysCopied > was+1
	})
	if most > 1 {
		t.Errorf("%d messages wait for the heir", most)
	}
	f.wire.most.Store(0)
	f.whole()
}

// A node that nobody reached for a time, and that was told of no other view, serves
// none of what its heir took meanwhile; and then takes its units anew.
func TestCopiesDisplaced(t *testing.T) {
	f := newFleet(t, 4)
	f.whole()
	still := f.nodes[0]
	v := still.view()
	r := redis.NewClient(&redis.Options{Addr: still.address, MaxRetries: -1, Protocol: 2, DisableIdentity: true})
	defer r.Close()
	ctx := context.Background()
	var keys []string
	for i := 0; len(keys) < 50; i++ {
		if k := fmt.Sprint("k", i); v.servedBy(cluster.KeySlot([]byte(k))) == v.Self {
			keys = append(keys, k)
			if err := r.Set(ctx, k, "old", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.kill(still.name)
	f.tell()
	c := f.client()
	defer c.close()
	for _, k := range keys {
		waitFor(t, "the heir takes it", func() bool { _, err := c.do(k, "set", k, "new"); return err == nil })
	}
	f.mu.Lock()
	f.live[still.name] = still.number
	f.mu.Unlock()
	f.wire.set(f.dead, nil)
	for i, n := range f.nodes {
		if n != still {
			n.SetCluster(f.view(i))
		}
	}
	still.copies.mu.Lock()
	old := slices.Collect(maps.Keys(still.copies.out))
	still.copies.mu.Unlock()
	still.Displaced()
	for _, k := range keys {
		waitFor(t, "it serves its units again", func() bool {
			got, err := r.Get(ctx, k).Result()
			if err == nil && got == "old" {
				t.Errorf("%s is %q", k, got)
			}
			return err == nil || err == redis.Nil
		})
	}
	if t.Failed() {
		return
	}
	for _, k := range keys {
		if err := r.Set(ctx, k, "newest", 0).Err(); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	for _, o := range old { // it hears late that its heirs had taken what it has taken again
		o.taken.Store(false)
		o.lose()
	}
	still.copies.again()
	f.whole()
}

// A message that is not the next one ends its session, and so do late words of others
// nothing.
func TestCopiesMessages(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	heir := f.nodes[1]
	ask := func(args ...string) string {
		t.Helper()
		b := [][]byte{[]byte("mc.copy")}
		for _, a := range args {
			b = append(b, []byte(a))
		}
		reply, _, err := f.nodes[0].peerFor(heir.address, peerControl).do(b)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(reply))
	}
	var units unitSet
	for u := range copyUnits {
		v := heir.view()
		if slot := uint16(u * unitSlots); v.servedBy(slot) == 2 && v.ownersOf(slot)[1] == 1 {
			units.add(u)
		}
	}
	key := keyOf(0)
	for n := 0; !units.has(heir.copies.unitOf([]byte(key))); n++ {
		key = fmt.Sprint("key", n)
	}
	all := string(units.encode())
	meta := string(make([]byte, copyMetaBytes))
	for _, c := range []struct{ ask, want string }{
		{"begin a.b.1 " + all, "+OK"},
		{"set a.b.1 1 " + key + " META one", "+OK"},
		{"set a.b.1 3 " + key + " META two", "-GONE"},
		{"set a.b.1 2 " + key + " META two", "-GONE"},
		{"begin a.b.2 " + all, "+OK"},
		{"set a.b.1 2 " + key + " META two", "-GONE"},
		{"set a.b.2 1 " + key + " bad two", "-GONE"},
		{"begin a.b.2 " + string(heir.copies.held.encode()), "-TRYAGAIN"},
		{"begin a.b.3 short", "-ERR"},
		{"begin a.b " + all, "-ERR"},
		{"whatever a.b.3", "-ERR"},
		{"take b", "-ERR"},
		// a tells that it has a session with b, and ends it; one is told late.
		{"witness a.b.5 " + all, "+OK"},
		{"take c " + string((&unitSet{}).encode()) + " a.b.5", "$1\r\n0"}, // it is not c's
		{"take b " + string((&unitSet{}).encode()) + " a.b.4", "$1\r\n0"},
		{"end a.b.5", "+OK"},
		{"witness a.b.5 " + all, "+OK"},
		{"take b " + string((&unitSet{}).encode()) + " a.b.5", "$1\r\n0"},
		{"witness a.b.6 " + all, "+OK"},
		{"witness a.b.5 " + all, "+OK"},
		{"take b " + all + " a.b.6", "$1\r\n1"},
		{"end a.b.6", "-TAKEN"},
		{"witness a.b.7 " + all, "+OK"},
		{"take c " + all, "$0"},
		{"take b " + all + " a.b.7", "$1\r\n0"},
	} {
		args := strings.SplitN(c.ask, " ", 3)
		if args[0] == "set" {
			args = strings.Split(c.ask, " ")
			if args[4] == "META" {
				args[4] = meta
			}
		} else if len(args) == 3 && len(args[2]) > copyUnits/8 { // units may have any bytes
			args = append(args[:2], args[2][:copyUnits/8], args[2][copyUnits/8+1:])
		}
		if got := ask(args...); !strings.HasPrefix(got, c.want) || c.want == "$0" && got != "$0" {
			t.Errorf("%.40q: %q, want %q", c.ask, got, c.want)
		}
	}
	err := redis.NewClient(&redis.Options{Addr: heir.address}).Do(context.Background(), "mc.copy", "end", "a.b.1").Err()
	if err == nil || !strings.HasPrefix(err.Error(), "ERR this is for members") {
		t.Error("a client that is no member:", err)
	}
}

// A member that keeps no copies, because it is yet to be restarted, holds nobody up.
func TestCopiesMixed(t *testing.T) {
	f := newFleet(t, 3, 2)
	units := func(of func(v *ClusterView, slot uint16) bool) (n int) {
		for u := range copyUnits {
			if of(f.nodes[0].view(), uint16(u*unitSlots)) {
				n++
			}
		}
		return n
	}
	between := units(func(v *ClusterView, slot uint16) bool { return !slices.Contains(v.ownersOf(slot), 2) })
	waitFor(t, "the others have copies", func() bool { return f.nodes[0].complete()+f.nodes[1].complete() == between })
	if n := f.sum(func(st Stats) uint64 { return uint64(st.UnitsCopied) }); n > 0 {
		t.Errorf("%d units count as copied, and it cannot confirm it", n)
	}
	f.wire.set(nil, func(from, to int) bool { return from == 0 && to == 1 })
	w := &modelWriter{t: t, c: f.client(), keys: make([]keyModel, 100)}
	defer w.c.close()
	for i := range w.keys {
		if _, err := w.c.do(w.key(i), "set", w.key(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if f.nodes[0].Stats().CopiesVoided == 0 {
		t.Error("nobody was passed over")
	}
}

// What FLUSHALL removed does not live on.
func TestCopiesFlush(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	w := &modelWriter{t: t, c: f.client(), keys: make([]keyModel, 90)}
	defer w.c.close()
	flushed := 0
	for i := range w.keys {
		if _, err := w.c.do(w.key(i), "set", w.key(i), "v"); err != nil {
			t.Fatal(err)
		}
		w.keys[i].acked = "v"
		if f.nodes[0].view().servedBy(cluster.KeySlot([]byte(w.key(i)))) == 0 {
			w.keys[i].acked = ""
			flushed++
		}
	}
	r := redis.NewClient(&redis.Options{Addr: f.nodes[0].address})
	defer r.Close()
	if err := r.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	f.kill(0)
	f.tell()
	f.served(w)
	for i := range w.keys {
		w.read(i)
	}
	if flushed < 10 || w.hits < 10 {
		t.Error(flushed, "keys were flushed, of the others", w.hits, "are there")
	}
}

// A node that is told that another took its units serves them no more, though by its
// own view, which is older, they are its own; unless the taker is lost, or it stays so.
func TestCopiesYield(t *testing.T) {
	f := newFleet(t, 4)
	f.whole()
	f.kill(3)
	f.tell()
	f.whole()
	n := f.start(3)
	n.SetCluster(f.view(n.number))
	took := func(n *fleetNode) (units unitSet) {
		waitFor(t, "it has taken its units", func() bool {
			st := &n.cluster
			st.mu.Lock()
			defer st.mu.Unlock()
			units = n.copies.held
			return !st.cleaning && !units.empty() && n.copies.taking.empty()
		})
		return units
	}
	units := took(n)
	serves := func(o *fleetNode, unit int) bool { return o.here(o.view(), uint16(unit*unitSlots)) }
	for u := range copyUnits {
		if !units.has(u) {
			continue
		}
		for _, o := range f.nodes[:3] {
			took(o) // it has removed what it had
			if serves(o, u) {
				t.Fatalf("unit %d is served by two", u)
			}
		}
	}
	for _, o := range f.nodes[:3] {
		o.cluster.mu.Lock()
		for u, y := range o.copies.yielded {
			y.until = time.Time{} // as if that long had passed
			o.copies.yielded[u] = y
		}
		o.cluster.mu.Unlock()
	}
	f.kill(3)
	f.tell()
	waitFor(t, "others serve the units when the taker is lost", func() bool {
		for u := range copyUnits {
			if units.has(u) && !slices.ContainsFunc(f.nodes[:3], func(o *fleetNode) bool { return serves(o, u) }) {
				return false
			}
		}
		return true
	})
}

// Who changes the view of a node waits for its commands; the question of another, which
// of its units the node has, waits for that change and must not be one of them.
func TestCopiesServesWhileTheViewChanges(t *testing.T) {
	f := newFleet(t, 3)
	f.whole()
	n, other := f.nodes[0], f.nodes[1]
	asked := make(chan struct{})
	func() {
		n.cluster.mu.Lock() // as by SetCluster
		defer n.cluster.mu.Unlock()
		go func() {
			defer close(asked)
			var units unitSet
			units.add(0)
			var reply []byte
			_ = other.copies.ask(other.peerFor(n.address, peerControl), time.Minute, [][]byte{[]byte("MC.COPY"), []byte("serves"), []byte("n"), units.encode()}, &reply)
			if _, ok := decodeUnits(bulkOf(reply)); !ok {
				t.Errorf("it answers %q", reply)
			}
		}()
		stacks := make([]byte, 8<<20)
		waitFor(t, "the question waits", func() bool {
			return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("ingest.(*copies).serves("))
		})
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			n.settle()
		}()
		waitFor(t, "all commands have ended", func() bool {
			select {
			case <-settled:
				return true
			default:
				return false
			}
		})
	}()
	<-asked
}

// It asks the taker, and has its units back when that one gave them up.
func TestCopiesYieldIsGivenBack(t *testing.T) {
	f := newFleet(t, 4)
	f.whole()
	f.kill(3)
	f.tell()
	f.whole()
	n := f.join(3)
	f.tell()
	f.whole()
	f.ready(n)
	n.SetCluster(f.view(n.number)) // it alone knows that it is ready
	yielded := func() (units int) {
		for _, o := range f.nodes[:3] {
			o.cluster.mu.Lock()
			units += len(o.copies.yielded)
			for u, y := range o.copies.yielded {
				y.until = time.Now().Add(time.Hour) // for whatever reason, but time
				o.copies.yielded[u] = y
			}
			o.cluster.mu.Unlock()
		}
		return units
	}
	waitFor(t, "the others yield what it takes", func() bool { return yielded() > copyUnits/5 })
	for _, o := range f.nodes[:3] {
		o.copies.retake()
	}
	if yielded() < copyUnits/5 {
		t.Error("units were taken back from who has them")
	}
	f.mu.Lock()
	f.joins[n.number] = true
	f.mu.Unlock()
	n.SetCluster(f.view(n.number))
	waitFor(t, "the others have them again", func() bool { return yielded() == 0 })
	w := &modelWriter{t: t, c: f.client(), keys: make([]keyModel, 100)}
	defer w.c.close()
	f.served(w)
}

// The only witness may be slow to say that a session is complete: its heir does not
// give up what it has before it has heard from it.
func TestCopiesWitnessIsSlow(t *testing.T) {
	f, w, before := copiedFleet(t)
	var tries atomic.Int64
	f.wire.set(func(from, to int) bool {
		refused := from == 0 && to == 2 || from == 2 && to == 0
		if refused {
			tries.Add(1)
		}
		return refused || f.dead(from, to)
	}, nil)
	tries.Store(0)
	f.mu.Lock()
	f.live[1] = -1
	f.mu.Unlock()
	f.tell()
	waitFor(t, "both ask for a word of the other", func() bool { return tries.Load() > 4 })
	f.wire.set(f.dead, nil)
	f.served(w)
	if after := w.there(); after != before || f.sum(func(st Stats) uint64 { return st.UnitsDropped }) > 0 {
		t.Errorf("%d keys, and %d after a node was killed", before, after)
	}
}

// A copy counts when a witness knows of it, as nobody else can confirm it; one that did
// not answer when it was told is told again.
func TestCopiesCountWithAWitness(t *testing.T) {
	f, w, before := copiedFleet(t)
	n := f.nodes[0]
	f.wire.set(func(from, to int) bool { return from == 0 && to == 1 }, nil)
	if !n.copies.endAll(nil) {
		t.Fatal("the sessions do not end")
	}
	waitFor(t, "the heir that is left has copies", func() bool { return n.complete() > 0 })
	if units := n.Stats().UnitsCopied; units > 0 {
		t.Errorf("%d units count as copied, and nobody could confirm it", units)
	}
	f.wire.set(nil, nil)
	f.whole()
	f.kill(0)
	f.tell()
	f.served(w)
	if after := w.there(); after != before || f.sum(func(st Stats) uint64 { return st.UnitsDropped }) > 0 {
		t.Errorf("%d keys, and %d after a node was killed", before, after)
	}
}
