package remotewrite

import (
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// maxPathFunctions bounds the functions that a sample goes through: from the body
// to the batch, and from there to its slot.
const maxPathFunctions = 7

// TestPathOfSample counts them where a sample is written. Memory is read-only for
// that: once the array behind the batch, once all of the cache. So it also holds
// that a sample is written to these two places only: the first fault in the cache's
// memory is that at the slot.
func TestPathOfSample(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		for _, samples := range []int{1, 3} {
			r := newReceiver(t, Options{})
			body := func(from, n int) []byte {
				s := Series{Labels: labels("__name__", "up")}
				for i := range n {
					s.Samples = append(s.Samples, sample(float64(from+i), 1))
				}
				return encode(t, p, s)
			}
			for i := range 5 { // the next are in order, and on a grid that the head has by then
				answered(t, r.Send(p, body(i, 1)), 204, "")
			}
			next := body(5, samples)

			toBatch := faultOf(t, func() {
				h := NewHandler(r.Cache, Options{Now: r.o().Now})
				made := h.intakes.New
				h.intakes.New = func() any {
					in := made().(*intake)
					in.batch.SetSamples(readOnlySamples(t))
					return in
				}
				r.To = h
				r.Send(p, next)
			})
			r.To = r.Handler
			setWritable := readOnly(t, mappingOf(r.Memory))
			toSlot := faultOf(t, func() { r.Send(p, next) })
			setWritable()

			series := "remotewrite.(*intake).seriesV" + p.String()[:1]
			if n := len(toBatch); n == 0 || toBatch[n-1] != series {
				t.Fatalf("into the batch not by %s: %q", series, toBatch)
			}
			if n := len(toSlot); n == 0 || toSlot[n-1] != "mcache.(*shard).insertRunLocked" {
				t.Fatalf("into the slot not by insertRunLocked: %q", toSlot)
			}
			all := slices.Clone(toBatch)
			for _, f := range toSlot {
				if !slices.Contains(all, f) {
					all = append(all, f)
				}
			}
			if len(all) > maxPathFunctions {
				t.Errorf("%d samples pass %d functions, of at most %d: %q", samples, len(all), maxPathFunctions, all)
			}
			// The cache is as it was before.
			answered(t, r.Send(p, next), 204, "")
		}
	})
}

// faultOf are the functions from ServeHTTP on that were on the stack when f wrote
// to memory that is read-only; nil if it did not.
func faultOf(t *testing.T, f func()) (names []string) {
	t.Helper()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if err := recover(); err == nil {
			return
		} else if _, ok := err.(interface{ Addr() uintptr }); !ok {
			panic(err)
		}
		pcs := make([]uintptr, 100)
		frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
		for more := true; more; {
			var at runtime.Frame
			at, more = frames.Next()
			name, own := strings.CutPrefix(at.Function, "mcached/")
			if own && !strings.HasSuffix(at.File, "_test.go") && !strings.Contains(at.File, "writetest") {
				names = append(names, name)
			}
		}
		slices.Reverse(names)
	}()
	f()
	return nil
}

// readOnlySamples has room for samples that cannot be written.
func readOnlySamples(t *testing.T) []mcache.Sample {
	t.Helper()
	b, err := syscall.Mmap(-1, 0, syscall.Getpagesize(), syscall.PROT_READ, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) })
	return unsafe.Slice((*mcache.Sample)(unsafe.Pointer(&b[0])), len(b)/int(unsafe.Sizeof(mcache.Sample{})))[:0]
}

// readOnly makes b so until writable is called.
func readOnly(t *testing.T, b []byte) (writable func()) {
	t.Helper()
	if err := syscall.Mprotect(b, syscall.PROT_READ); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Mprotect(b, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
			t.Fatal(err)
		}
	}
}

// mappingOf is all the memory of a kvcache.Memory, which shows it to nobody.
func mappingOf(memory any) []byte {
	m := reflect.ValueOf(memory).Elem()
	return unsafe.Slice((*byte)(m.FieldByName("mapping").UnsafePointer()), m.FieldByName("mappingLen").Uint())
}
