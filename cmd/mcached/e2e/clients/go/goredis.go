package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// goRedis: transactions, optimistic locking, scripts, publications, small types.
func goRedis(ctx context.Context, addr string) {
	for _, protocol := range []int{2, 3} {
		c := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol, DB: protocol, ReadTimeout: patience})
		var n *redis.IntCmd
		done, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "n", 1, time.Hour)
			p.Expire(ctx, "n", 2*time.Hour)
			n = p.Incr(ctx, "n")
			return nil
		})
		check("TxPipelined", len(done), 3, err)
		check("INCR in it", n.Val(), 2, n.Err())
		ttl, err := c.TTL(ctx, "n").Result()
		check("TTL", ttl, 2*time.Hour, err)

		err = c.Watch(ctx, func(tx *redis.Tx) error {
			if err := c.Incr(ctx, "n").Err(); err != nil { // of somebody else
				return err
			}
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "n", 0, 0).Err() })
			return err
		}, "n")
		check("a watched change", errors.Is(err, redis.TxFailedErr), true, nil)
		v, err := c.Get(ctx, "n").Result()
		check("GET after it", v, "3", err)

		script := redis.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
		v64, err := script.Run(ctx, c, []string{"n"}, 4).Int64()
		check("a script", v64, 7, err)

		type user struct {
			Name string `redis:"name"`
			Age  int    `redis:"age"`
		}
		check("HSet of a struct", "", "", c.HSet(ctx, "user", user{"x", 40}).Err())
		var got user
		err = c.HGetAll(ctx, "user").Scan(&got)
		check("HGetAll into one", got, user{"x", 40}, err)
		check("SAdd", c.SAdd(ctx, "s", "a", "b").Val(), 2, nil)
		is, err := c.SMIsMember(ctx, "s", "a", "c").Result()
		check("SMIsMember", is, []bool{true, false}, err)

		ear := c.Subscribe(ctx, "news")
		_, err = ear.Receive(ctx)
		check("Subscribe", "", "", err)
		heard, err := c.Publish(ctx, "news", "hello").Result()
		check("Publish", heard, 1, err)
		m, err := ear.ReceiveMessage(ctx)
		check("ReceiveMessage", m.Payload, "hello", err)
		ear.Close()
		c.Close()
	}
}

// ring: what goes over several servers, here the databases of one.
func ring(ctx context.Context, addr string) {
	databases := map[string]int{"one": 1, "two": 2, "three": 3}
	addrs := map[string]string{}
	for name := range databases {
		addrs[name] = addr
	}
	i := 0
	r := redis.NewRing(&redis.RingOptions{Addrs: addrs, ReadTimeout: patience, HeartbeatFrequency: patience, NewClient: func(o *redis.Options) *redis.Client {
		i++
		o.DB = i
		return redis.NewClient(o)
	}})
	defer r.Close()
	_, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 300 {
			p.Set(ctx, fmt.Sprint("k", i), i, time.Hour)
		}
		return nil
	})
	check("Pipelined", "", "", err)
	for i := range 300 {
		v, err := r.Get(ctx, fmt.Sprint("k", i)).Int()
		check("Get", v, i, err)
	}
	shards := make(chan int64, len(databases))
	err = r.ForEachShard(ctx, func(ctx context.Context, c *redis.Client) error {
		n, err := c.DBSize(ctx).Result()
		shards <- n
		return err
	})
	close(shards)
	sum := int64(0)
	for n := range shards {
		if n == 0 {
			check("a shard", n, "keys", nil)
		}
		sum += n
	}
	check("all shards", sum, 300, err)
	_, err = r.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "{t}a", 1, 0)
		p.Incr(ctx, "{t}a")
		return nil
	})
	check("TxPipelined", r.Get(ctx, "{t}a").Val(), "2", err)
}
