package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// useRueidis: by default it speaks RESP3, pipelines by itself and caches on its side.
func useRueidis(ctx context.Context, addr string) {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}})
	check("NewClient", "", "", err)
	defer c.Close()
	other, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, SelectDB: 0, DisableCache: true})
	check("NewClient without its cache", "", "", err)
	defer other.Close()

	set := func(key, value string) {
		err := other.Do(ctx, other.B().Set().Key(key).Value(value).ExSeconds(3600).Build()).Error()
		check("SET", "", "", err)
	}
	cached := func(key string) (string, bool) {
		r := c.DoCache(ctx, c.B().Get().Key(key).Cache(), time.Hour)
		v, err := r.ToString()
		check("DoCache", "", "", err)
		return v, r.IsCacheHit()
	}
	set("k", "one")
	v, hit := cached("k")
	check("the first read", fmt.Sprint(v, hit), "onefalse", nil)
	v, hit = cached("k")
	check("the second read", fmt.Sprint(v, hit), "onetrue", nil)
	set("k", "two")
	until(ctx, "the cache to forget", func() bool { v, _ := cached("k"); return v == "two" })

	// MGetCache and hashes go the same way, in a transaction behind CLIENT CACHING.
	set("a", "1")
	set("b", "2")
	many, err := rueidis.MGetCache(c, ctx, time.Hour, []string{"a", "none", "b"})
	check("MGetCache", len(many), 3, err)
	b := many["b"]
	v, err = b.ToString()
	check("of b", v, "2", err)
	err = c.Do(ctx, c.B().Hset().Key("h").FieldValue().FieldValue("f", "old").Build()).Error()
	check("HSET", "", "", err)
	hash := func() string {
		v, err := c.DoCache(ctx, c.B().Hget().Key("h").Field("f").Cache(), time.Hour).ToString()
		check("HGET", "", "", err)
		return v
	}
	check("HGET", hash(), "old", nil)
	err = other.Do(ctx, other.B().Hset().Key("h").FieldValue().FieldValue("f", "new").Build()).Error()
	check("HSET", "", "", err)
	until(ctx, "the cache to forget a hash", func() bool { return hash() == "new" })

	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				check("INCR", "", "", c.Do(ctx, c.B().Incr().Key("n").Build()).Error())
			}
		})
	}
	all.Wait()
	v, err = c.Do(ctx, c.B().Get().Key("n").Build()).ToString()
	check("counted at once", v, "400", err)

	err = c.Dedicated(func(d rueidis.DedicatedClient) error {
		d.Do(ctx, d.B().Watch().Key("n").Build())
		set("n", "0")
		r := d.DoMulti(ctx, d.B().Multi().Build(), d.B().Incr().Key("n").Build(), d.B().Exec().Build())
		_, err := r[2].ToArray()
		check("a watched change", rueidis.IsRedisNil(err), true, nil)
		return nil
	})
	check("Dedicated", "", "", err)
	script := rueidis.NewLuaScript("return {KEYS[1], ARGV[1]}")
	got, err := script.Exec(ctx, c, []string{"k"}, []string{"x"}).AsStrSlice()
	check("a script", got, []string{"k", "x"}, err)
}
