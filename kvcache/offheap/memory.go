package offheap

import "mcached/kvcache"

// Memory is a kvcache.Memory: what is built of containers needs nothing else of
// that package.
type Memory = kvcache.Memory
