package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// clients by the name that the table has for them.
var clients = map[string]func(ctx context.Context, addr string){
	"go-redis": goRedis, "ring": ring, "rueidis": useRueidis, "redigo": useRedigo, "redislock": useRedislock, "scs": useScs,
	"cluster-go-redis": clusterGoRedis, "cluster-rueidis": clusterRueidis, // until they are ended
}

func main() {
	if len(os.Args) != 3 || clients[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: clients NAME PORT")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	clients[os.Args[1]](ctx, "127.0.0.1:"+os.Args[2])
	fmt.Println("ok")
}

// patience is what a client that has a time limit of its own is given: machines
// that run tests may be slow.
const patience = time.Minute

// check ends the program unless a client got what it should, and no error.
func check(what string, got, want any, err error) {
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		fmt.Fprintf(os.Stderr, "%s: got %v and error %v, want %v\n", what, got, err, want)
		os.Exit(1)
	}
}

// until waits for what somebody else has caused.
func until(ctx context.Context, what string, f func() bool) {
	for !f() {
		select {
		case <-ctx.Done():
			check("waiting for "+what, "nothing", "it", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
