package main

import (
	"context"
	"time"

	"github.com/alexedwards/scs/redisstore"
	"github.com/gomodule/redigo/redis"
)

func redigoPool(addr string) *redis.Pool {
	return &redis.Pool{MaxIdle: 3, IdleTimeout: 240 * time.Second, DialContext: func(ctx context.Context) (redis.Conn, error) { return redis.DialContext(ctx, "tcp", addr) }}
}

// useRedigo: Do, Send and Flush, transactions, scripts, subscriptions.
func useRedigo(ctx context.Context, addr string) {
	pool := redigoPool(addr)
	defer pool.Close()
	c, err := pool.GetContext(ctx)
	check("GetContext", "", "", err)
	defer c.Close()
	v, err := redis.String(c.Do("SET", "k", "v", "EX", 3600))
	check("SET", v, "OK", err)
	v, err = redis.String(c.Do("GET", "k"))
	check("GET", v, "v", err)
	_, err = redis.String(c.Do("GET", "none"))
	check("GET of nothing", err == redis.ErrNil, true, nil)

	check("MULTI", "", "", c.Send("MULTI"))
	check("INCR", "", "", c.Send("INCR", "a"))
	check("INCR", "", "", c.Send("INCR", "b"))
	n, err := redis.Ints(c.Do("EXEC"))
	check("EXEC", n, []int{1, 1}, err)
	for range 10 {
		check("Send", "", "", c.Send("INCR", "a"))
	}
	check("Flush", "", "", c.Flush())
	for i := range 10 {
		n, err := redis.Int(c.Receive())
		check("Receive", n, i+2, err)
	}

	_, err = c.Do("HSET", redis.Args{}.Add("h").AddFlat(map[string]string{"a": "1", "b": "2"})...)
	check("HSET", "", "", err)
	m, err := redis.StringMap(c.Do("HGETALL", "h"))
	check("HGETALL", m, map[string]string{"a": "1", "b": "2"}, err)
	script := redis.NewScript(1, "return redis.call('incrby', KEYS[1], ARGV[1])")
	for _, want := range []int{16, 21} {
		got, err := redis.Int(script.Do(c, "a", 5))
		check("a script", got, want, err)
	}

	ear, err := pool.GetContext(ctx)
	check("GetContext", "", "", err)
	defer ear.Close()
	psc := redis.PubSubConn{Conn: ear}
	check("Subscribe", "", "", psc.Subscribe("news"))
	psc.Receive()
	_, err = c.Do("PUBLISH", "news", "hello")
	check("PUBLISH", "", "", err)
	heard, _ := psc.Receive().(redis.Message)
	check("Receive", string(heard.Data), "hello", nil)
}

// useScs: the store of scs' sessions.
func useScs(_ context.Context, addr string) {
	pool := redigoPool(addr)
	defer pool.Close()
	store := redisstore.New(pool)
	check("Commit", "", "", store.Commit("token", []byte("of a visitor"), time.Now().Add(time.Hour)))
	b, found, err := store.Find("token")
	check("Find", string(b), "of a visitor", err)
	check("Find", found, true, nil)
	all, err := store.All()
	check("All", len(all), 1, err)
	check("Delete", "", "", store.Delete("token"))
	_, found, err = store.Find("token")
	check("Find after Delete", found, false, err)
	visits(store)
}
