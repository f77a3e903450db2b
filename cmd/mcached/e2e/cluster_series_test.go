package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/redis/go-redis/v9"
)

// TestClusterSeries: commands of many series are answered by each member as by one
// daemon that holds everything: series that were written by key, by labels to two
// members, and keys without a sample.
func TestClusterSeries(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3, "--cluster.copies=2")
	one := startServer(t, "--self-scrape.interval=0")
	ctx := context.Background()
	all := g.clusterClient()
	rng := rand.New(rand.NewPCG(7, 11))
	from := time.Now().Add(-time.Hour).Truncate(time.Second)

	// By labels, a part to each member.
	parts := make([][]prompb.TimeSeries, len(g.members))
	var whole []prompb.TimeSeries
	for i := range 30 {
		x := oneSeries(0, 0, "__name__", "written", "i", fmt.Sprintf("%02d", i), "room", fmt.Sprint(i%4), "kind", "labels")
		x.Samples = nil
		for k := range 20 {
			x.Samples = append(x.Samples, prompb.Sample{Timestamp: from.UnixMilli() + int64(1000*k), Value: float64(i + k)})
		}
		parts[i%len(parts)], whole = append(parts[i%len(parts)], x), append(whole, x)
	}
	for i, s := range append(g.running(), one) {
		batch := whole
		if i < len(parts) {
			batch = parts[i]
		}
		if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, batch...))); err != nil || code != http.StatusNoContent {
			t.Fatalf("%d %q %v", code, said, err)
		}
	}
	// By key.
	single := redis.NewClient(&redis.Options{Addr: one.resp})
	defer single.Close()
	both := func(args ...any) {
		t.Helper()
		a, err := all.Do(ctx, args...).Result()
		b, err2 := single.Do(ctx, args...).Result()
		if fmt.Sprint(a, err) != fmt.Sprint(b, err2) {
			t.Fatalf("%v: %v %v, on one daemon %v %v", args, a, err, b, err2)
		}
	}
	for i := range 40 {
		key := fmt.Sprintf("temp:%02d", i)
		both("ts.create", key, "labels", "room", i%4, "kind", "key")
		for k := range rng.IntN(4) * 5 {
			both("ts.add", key, from.UnixMilli()+int64(1000*k), i*k)
		}
	}
	both("ts.add", `named{room="1",kind="labels"}`, from.UnixMilli(), 5)

	clients := func(addr string) (list []*redis.Client) {
		for protocol := 2; protocol <= 3; protocol++ {
			c := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol, MaxRetries: -1})
			t.Cleanup(func() { c.Close() })
			list = append(list, c)
		}
		return list
	}
	wanted := clients(one.resp)
	var asked [][]*redis.Client
	for _, s := range g.members {
		asked = append(asked, clients(s.resp))
	}
	commands := [][]any{
		{"ts.queryindex", "room=1"}, {"ts.queryindex", "kind=(key,labels)", "room!=(1,2)"}, {"ts.queryindex", "kind=key", "i="}, {"ts.queryindex", "none=such"},
		{"ts.mget", "withlabels", "filter", "room=2"}, {"ts.mget", "selected_labels", "room", "none", "filter", "kind=key"}, {"ts.mget", "filter", "bad"},
		{"ts.mrange", "-", "+", "aggregation", "twa", 3000, "filter", "room=1"}, {"ts.mrange", "-", "+", "filter", "room="},
	}
	for range 60 {
		cmd := []any{[]string{"ts.mrange", "ts.mrevrange"}[rng.IntN(2)], from.UnixMilli() + int64(rng.IntN(10_000)), from.UnixMilli() + int64(5000+rng.IntN(20_000))}
		maybe := func(words ...any) {
			if rng.IntN(3) == 0 {
				cmd = append(cmd, words...)
			}
		}
		maybe("withlabels")
		maybe("count", 1+rng.IntN(5))
		maybe("aggregation", []string{"avg", "sum", "min,max", "std.p", "count", "last"}[rng.IntN(6)], 1000*(1+rng.IntN(7)))
		cmd = append(cmd, "filter", []string{"room=1", "kind=key", "kind=labels", "kind=(key,labels)", "room=(0,3)"}[rng.IntN(5)])
		maybe("groupby", "room", "reduce", []string{"sum", "max", "avg", "count"}[rng.IntN(4)])
		commands = append(commands, cmd)
	}
	some := 0
	for i, cmd := range commands {
		for p := range wanted {
			want, wantErr := wanted[p].Do(ctx, cmd...).Result()
			got, err := asked[i%len(asked)][p].Do(ctx, cmd...).Result()
			if fmt.Sprint(got, err) != fmt.Sprint(want, wantErr) {
				t.Errorf("RESP%d, member %d, %v:\n%v %v\nwant\n%v %v", p+2, i%len(asked), cmd, got, err, want, wantErr)
			}
			if len(fmt.Sprint(want)) > 100 {
				some++
			}
		}
	}
	if some < 80 {
		t.Errorf("only %d answers had something", some)
	}

	// Nobody else can be asked where all others wait.
	_, err := asked[0][0].TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Do(ctx, "ts.mget", "filter", "room=1").Err() })
	if err == nil || !strings.Contains(err.Error(), "multi sharded") {
		t.Error("in a transaction:", err)
	}

	// Without a member no answer passes for whole. When the others know that it has
	// gone, what it had copies of is there, and its keys are not.
	_ = g.members[2].cmd.Process.Signal(syscall.SIGKILL)
	<-g.members[2].exited
	list, err := asked[0][0].Do(ctx, "ts.queryindex", "kind=(key,labels)").Slice()
	if err == nil || !strings.HasPrefix(err.Error(), "CLUSTERDOWN") {
		t.Errorf("without a member %d series, %v", len(list), err)
	}
	g.wait("n0", "n1")
	list, err = asked[0][0].Do(ctx, "ts.queryindex", "kind=labels").Slice()
	if err != nil || len(list) < 30 || len(list) > 31 {
		t.Errorf("afterwards %d series, %v", len(list), err)
	}
}
