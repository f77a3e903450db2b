//go:build !race

package kvcache

// raceDetector says that the race detector watches.
const raceDetector = false
