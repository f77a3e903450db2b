package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
)

// useRedislock: locks of bsm, whose every step is a script.
func useRedislock(ctx context.Context, addr string) {
	c := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: patience})
	defer c.Close()
	locker := redislock.New(c)
	lock, err := locker.Obtain(ctx, "lock", time.Hour, nil)
	check("Obtain", "", "", err)
	_, err = locker.Obtain(ctx, "lock", time.Hour, nil)
	check("Obtain of what is taken", errors.Is(err, redislock.ErrNotObtained), true, nil)
	ttl, err := lock.TTL(ctx)
	check("TTL", ttl > 50*time.Minute && ttl <= time.Hour, true, err)
	check("Refresh", "", "", lock.Refresh(ctx, 2*time.Hour, nil))
	ttl, err = lock.TTL(ctx)
	check("TTL after it", ttl > time.Hour, true, err)
	check("Release", "", "", lock.Release(ctx))
	check("Release again", errors.Is(lock.Release(ctx), redislock.ErrLockNotHeld), true, nil)

	counted := 0 // what the lock guards
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			lock, err := locker.Obtain(ctx, "counted", time.Hour, &redislock.Options{RetryStrategy: redislock.LinearBackoff(10 * time.Millisecond)})
			check("Obtain with patience", "", "", err)
			counted++
			check("Release", "", "", lock.Release(ctx))
		})
	}
	all.Wait()
	check("counted", counted, 4, nil)
}
