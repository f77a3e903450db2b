package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// load writes and reads a cluster until the program is ended, and says how it goes:
// how many operations were "served", each "error" with its time, and what it read
// that was "wrong": neither a miss, nor what was written last, nor what a write that
// failed may have left. set and get have errMiss for a miss.
func load(ctx context.Context, prefix string, set func(key, value string) error, get func(key string) (string, error)) {
	const keys = 100
	type known struct {
		acked string
		maybe map[string]bool // of writes that failed
	}
	var all [keys]known
	served := 0
	did := func(err error) bool {
		if err != nil && !errors.Is(err, errMiss) {
			fmt.Printf("error %d %v\n", time.Now().UnixMilli(), err)
			time.Sleep(20 * time.Millisecond)
			return false
		}
		if served++; served%50 == 0 {
			fmt.Println("served", served)
		}
		return err == nil
	}
	look := func(i int) {
		v, err := get(fmt.Sprint(prefix, i))
		if k := &all[i]; did(err) && v != k.acked && !k.maybe[v] {
			fmt.Printf("wrong %s%d is %q, acknowledged was %q\n", prefix, i, v, k.acked)
		}
	}
	for n := 0; ctx.Err() == nil; n++ {
		k, v := &all[n%keys], fmt.Sprint(n)
		if did(set(fmt.Sprint(prefix, n%keys), v)) {
			k.acked = v
		} else {
			if k.maybe == nil {
				k.maybe = map[string]bool{}
			}
			k.maybe[v] = true
		}
		look(n % keys)
		look(n * 37 % keys)
		time.Sleep(2 * time.Millisecond)
	}
}

var errMiss = errors.New("a miss")

func clusterGoRedis(ctx context.Context, addr string) {
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, MaxRedirects: 8, ClusterStateReloadInterval: time.Second, ReadTimeout: patience, WriteTimeout: patience})
	masters := make(chan string, 100)
	check("ForEachMaster", "", "", c.ForEachMaster(ctx, func(_ context.Context, m *redis.Client) error { masters <- m.Options().Addr; return nil }))
	fmt.Println("masters", len(masters))
	load(ctx, "go-redis", func(key, value string) error { return c.Set(ctx, key, value, 0).Err() }, func(key string) (string, error) {
		v, err := c.Get(ctx, key).Result()
		if errors.Is(err, redis.Nil) {
			err = errMiss
		}
		return v, err
	})
}

func clusterRueidis(ctx context.Context, addr string) {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ShuffleInit: true, ConnWriteTimeout: patience})
	check("NewClient", "", "", err)
	fmt.Println("masters", len(c.Nodes()))
	load(ctx, "rueidis", func(key, value string) error {
		return c.Do(ctx, c.B().Set().Key(key).Value(value).Build()).Error()
	}, func(key string) (string, error) {
		v, err := c.Do(ctx, c.B().Get().Key(key).Build()).ToString()
		if rueidis.IsRedisNil(err) {
			err = errMiss
		}
		return v, err
	})
}
