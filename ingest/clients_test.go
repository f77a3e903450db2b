package ingest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestGoRedis drives the client that Go programs use, in both protocols.
func TestGoRedis(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) {
			_, addr := newServer(t, func(o *Options) { o.Password = "secret" })
			ctx, cancel := context.WithDeadline(context.Background(), lastly(t))
			defer cancel()
			c := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol, Password: "secret", ClientName: "go", ReadTimeout: time.Until(lastly(t))})
			defer c.Close()
			goRedisStrings(t, ctx, c)
			goRedisSeries(t, ctx, c)
			wrong := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol, Password: "wrong", MaxRetries: -1, ReadTimeout: time.Until(lastly(t))})
			defer wrong.Close()
			if err := wrong.Ping(ctx).Err(); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
				t.Errorf("with a wrong password: %v", err)
			}
		})
	}
}

// TestSetPassword: a new password is asked of those who come, and of nobody who is there.
func TestSetPassword(t *testing.T) {
	s, addr := newServer(t, func(o *Options) { o.Password = "old" })
	ctx := t.Context()
	client := func(password string) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: addr, Password: password, PoolSize: 1, MaxRetries: -1, ReadTimeout: time.Until(lastly(t))})
		t.Cleanup(func() { c.Close() })
		return c
	}
	early := client("old")
	if err := early.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPassword("new"); err != nil {
		t.Fatal(err)
	}
	if err := early.Ping(ctx).Err(); err != nil {
		t.Errorf("whoever was there: %v", err)
	}
	if err := client("old").Ping(ctx).Err(); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("with the old one: %v", err)
	}
	if err := client("new").Ping(ctx).Err(); err != nil {
		t.Errorf("with the new one: %v", err)
	}
	if err := s.SetPassword(""); err == nil {
		t.Error("the password was taken away")
	}
	open, _ := newServer(t, nil)
	if err := open.SetPassword("x"); err == nil {
		t.Error("a password was given to a server without")
	}
}

func goRedisStrings(t *testing.T, ctx context.Context, c *redis.Client) {
	t.Helper()
	check := func(what string, got, want any, err error) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
			t.Errorf("%s: got %v and %v, want %v", what, got, err, want)
		}
	}
	name, err := c.ClientGetName(ctx).Result()
	check("CLIENT GETNAME", name, "go", err)
	check("SET", "", "", c.Set(ctx, "k", "v", time.Minute).Err())
	v, err := c.Get(ctx, "k").Result()
	check("GET", v, "v", err)
	if _, err := c.Get(ctx, "absent").Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("GET absent: %v", err)
	}
	ttl, err := c.TTL(ctx, "k").Result()
	check("TTL", ttl, time.Minute, err)
	ok, err := c.SetNX(ctx, "k", "w", 0).Result()
	check("SETNX", ok, false, err)
	old, err := c.SetArgs(ctx, "k", "w", redis.SetArgs{Get: true, KeepTTL: true}).Result()
	check("SET GET", old, "v", err)
	v, err = c.GetEx(ctx, "k", time.Hour).Result()
	check("GETEX", v, "w", err)
	v, err = c.GetDel(ctx, "k").Result()
	check("GETDEL", v, "w", err)
	check("MSET", "", "", c.MSet(ctx, "a", 1, "b", 2, "c", "x").Err())
	many, err := c.MGet(ctx, "a", "absent", "c").Result()
	check("MGET", many, []any{"1", nil, "x"}, err)
	n, err := c.IncrBy(ctx, "a", 41).Result()
	check("INCRBY", n, 42, err)
	f, err := c.IncrByFloat(ctx, "f", 1.5).Result()
	check("INCRBYFLOAT", f, 1.5, err)
	n, err = c.Exists(ctx, "a", "b", "absent").Result()
	check("EXISTS", n, 2, err)
	n, err = c.Del(ctx, "b", "absent").Result()
	check("DEL", n, 1, err)
	ok, err = c.ExpireGT(ctx, "a", time.Minute).Result()
	check("EXPIRE GT", ok, false, err)
	ok, err = c.Expire(ctx, "a", time.Minute).Result()
	check("EXPIRE", ok, true, err)
	part, err := c.GetRange(ctx, "c", 0, -1).Result()
	check("GETRANGE", part, "x", err)
	encoding, err := c.ObjectEncoding(ctx, "a").Result()
	check("OBJECT ENCODING", encoding, "int", err)
	save, err := c.ConfigGet(ctx, "save").Result()
	check("CONFIG GET", save, map[string]string{"save": ""}, err)
	if info, err := c.Info(ctx).Result(); err != nil || !strings.Contains(info, "loading:0") {
		t.Errorf("INFO: %v", err)
	}
	if cmds, err := c.Command(ctx).Result(); err != nil || cmds["get"] == nil || cmds["get"].FirstKeyPos != 1 {
		t.Errorf("COMMAND: %v", err)
	}
	if usage, err := c.MemoryUsage(ctx, "a").Result(); err != nil || usage < 8 || usage > 100 {
		t.Errorf("MEMORY USAGE: %d, %v", usage, err)
	}

	// A pipeline of a thousand, and an iteration over what it leaves.
	_, err = c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 1000 {
			p.Set(ctx, fmt.Sprint("p:", i), i, 0)
		}
		return nil
	})
	check("pipeline", "", "", err)
	seen := map[string]bool{}
	it := c.Scan(ctx, 0, "p:*", 50).Iterator()
	for it.Next(ctx) {
		seen[it.Val()] = true
	}
	check("SCAN", len(seen), 1000, it.Err())
	check("FLUSHALL", "", "", c.FlushAll(ctx).Err())
	size, err := c.DBSize(ctx).Result()
	check("DBSIZE", size, 0, err)
}

func goRedisSeries(t *testing.T, ctx context.Context, c *redis.Client) {
	t.Helper()
	opts := &redis.TSOptions{Retention: 3_600_000, DuplicatePolicy: "LAST", Labels: map[string]string{"room": "a", "kind": "temp"}, IgnoreMaxTimeDiff: 1, IgnoreMaxValDiff: 0.1}
	if err := c.TSCreateWithArgs(ctx, "s", opts).Err(); err != nil {
		t.Fatalf("TS.CREATE: %v", err)
	}
	for i := range 10 {
		if got, err := c.TSAdd(ctx, "s", 1000+10*i, float64(i)/2).Result(); err != nil || got != int64(1000+10*i) {
			t.Fatalf("TS.ADD: %d, %v", got, err)
		}
	}
	got, err := c.TSRangeWithArgs(ctx, "s", 0, 2000, &redis.TSRangeOptions{Aggregators: []redis.Aggregator{redis.Sum}, BucketDuration: 50, Align: "-"}).Result()
	if err != nil || len(got) != 2 || got[0].Timestamp != 1000 || got[0].Value != 5 || got[1].Timestamp != 1050 || got[1].Value != 17.5 {
		t.Errorf("TS.RANGE: %v, %v", got, err)
	}
	last, err := c.TSGet(ctx, "s").Result()
	if err != nil || last.Timestamp != 1090 || last.Value != 4.5 {
		t.Errorf("TS.GET: %v, %v", last, err)
	}
	if keys, err := c.TSQueryIndex(ctx, []string{"room=a"}).Result(); err != nil || !slices.Equal(keys, []string{"s"}) {
		t.Errorf("TS.QUERYINDEX: %v, %v", keys, err)
	}
	multi, err := c.TSMRangeWithArgs(ctx, 0, 2000, []string{"kind=temp"}, &redis.TSMRangeOptions{WithLabels: true, Count: 2}).Result()
	if err != nil || len(multi["s"]) < 2 || !strings.Contains(fmt.Sprint(multi["s"]), "1010 0.5") {
		t.Errorf("TS.MRANGE: %v, %v", multi, err)
	}
	if m, err := c.TSMGet(ctx, []string{"kind=temp"}).Result(); err != nil || !strings.Contains(fmt.Sprint(m["s"]), "1090 4.5") {
		t.Errorf("TS.MGET: %v, %v", m, err)
	}
	info, err := c.TSInfo(ctx, "s").Result()
	if err != nil || fmt.Sprint(info["totalSamples"]) != "10" || fmt.Sprint(info["retentionTime"]) != "3600000" {
		t.Errorf("TS.INFO: %v, %v", info, err)
	}
	if n, err := c.TSIncrBy(ctx, "counter", 2).Result(); err != nil || n == 0 {
		t.Errorf("TS.INCRBY: %d, %v", n, err)
	}
	added, err := c.TSMAdd(ctx, [][]any{{"s", 2000, 1}, {"s", 2010, 2}}).Result()
	if err != nil || !slices.Equal(added, []int64{2000, 2010}) {
		t.Errorf("TS.MADD: %v, %v", added, err)
	}
}

func TestRedisCLI(t *testing.T) {
	cli := program(t, "redis-cli")
	_, addr := newServer(t, nil)
	_, port, _ := net.SplitHostPort(addr)
	for _, c := range []struct{ args, in, want string }{
		{"SET k v", "", "OK\n"},
		{"-3 GET k", "", "v\n"},
		{"--no-raw -3 CONFIG GET save", "", "1# \"save\" => \"\"\n"},
		{"--no-raw TS.ADD s 1 2.5", "", "(integer) 1\n"},
		{"--no-raw -3 TS.GET s", "", "1) (integer) 1\n2) (double) 2.5\n"},
		{"", "PING\nGET k\nDEL k\n", "PONG\nv\n1\n"},
		{"--pipe", "*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n", "errors: 0, replies: 2"},
		{"--scan", "", "a\n"},
		{"INFO server", "", "redis_version:7.0.15"},
	} {
		ctx, cancel := context.WithDeadline(context.Background(), lastly(t))
		cmd := exec.CommandContext(ctx, cli, append([]string{"-p", port}, strings.Fields(c.args)...)...)
		cmd.Stdin = strings.NewReader(c.in)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("redis-cli %s: %q, %v, want %q", c.args, out, err, c.want)
		}
	}
}

func TestRedisBenchmark(t *testing.T) {
	bench := program(t, "redis-benchmark")
	s, addr := newServer(t, nil)
	_, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithDeadline(context.Background(), lastly(t))
	defer cancel()
	out, err := exec.CommandContext(ctx, bench, "-p", port, "-t", "ping,set,get,incr,mset", "-n", "5000", "-r", "1000", "-P", "16", "-q").CombinedOutput()
	if err != nil || strings.Contains(string(out), "rror") || strings.Count(string(out), "requests per second") < 6 {
		t.Fatalf("%v: %s", err, out)
	}
	if st := s.Stats(); st.Commands < 30_000 || st.CommandErrors > 0 {
		t.Fatalf("stats: %+v", st)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	s, addr := newServer(t, func(o *Options) {
		shortTimeouts(o)
		o.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	})
	c := redis.NewClient(&redis.Options{Addr: addr, TLSConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}, ReadTimeout: time.Until(lastly(t))})
	defer c.Close()
	big := strings.Repeat("v", 200_000)
	if err := c.Set(t.Context(), "k", big, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), "k").Result(); got != big || err != nil {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	// Who never ends the handshake is closed, and so is who does not begin it.
	silent, garbage := dial(t, addr), dial(t, addr)
	send(t, garbage, "PING\r\n")
	_ = silent.SetReadDeadline(lastly(t))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a silent client got %v", err)
	}
	if s.Stats().ConnectionsTimedOut == 0 {
		t.Fatal("nothing timed out")
	}
}
