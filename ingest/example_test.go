package ingest_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"mcached/ingest"
	"mcached/kvcache"
	"mcached/mcache"
)

// A server for blobs and time series on one memory, and a client of it.
func ExampleServer() {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer memory.Close()
	blobs, err := kvcache.NewDatabases(kvcache.CacheOptions{Memory: memory}, 16)
	if err != nil {
		log.Fatal(err)
	}
	defer blobs.Close()
	metrics, err := mcache.New(mcache.Options{Memory: memory})
	if err != nil {
		log.Fatal(err)
	}
	defer metrics.Close()

	server, err := ingest.NewServer(ingest.Options{Memory: memory, Blobs: blobs, Metrics: metrics})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: listener.Addr().String()})
	fmt.Println(client.Set(ctx, "greeting", "hello", time.Minute).Val())
	fmt.Println(client.Get(ctx, "greeting").Val())
	client.TSAddWithArgs(ctx, "temperature", 1000, 21.5, &redis.TSOptions{Labels: map[string]string{"room": "kitchen"}})
	fmt.Println(client.TSQueryIndex(ctx, []string{"room=kitchen"}).Val())
	client.Close()

	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	if err := <-served; err != nil {
		log.Fatal(err)
	}
	// Output:
	// OK
	// hello
	// [temperature]
}
