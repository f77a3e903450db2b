package mcache

import (
	"mcached/kvcache"
	"mcached/mcache/block"
)

// Of a series: the address of its blob.

func (r *series) blobRef() kvcache.Ref { return kvcache.Ref(r.blobHigh)<<32 | kvcache.Ref(r.blobLow) }

// setBlob sets the address; zero is none.
func (r *series) setBlob(ref kvcache.Ref) {
	r.blobLow, r.blobHigh = uint32(ref), uint32(ref>>32)
	r.flags &^= flagBlob
	if ref != 0 {
		r.flags |= flagBlob
	}
}

// blobOf is the blob of r, valid until the next call on the shard's tables; ok
// is false if it has none, or had one that is gone.
func (s *shard) blobOf(r *series) (o block.Blob, ok bool) {
	if r.flags&flagBlob == 0 {
		return block.Blob{}, false
	}
	b := s.blobs.Value(r.blobRef())
	if b == nil {
		return block.Blob{}, false
	}
	if o, ok = block.OpenBlob(b); !ok {
		// Nothing of ours writes such a thing. It is as good as gone.
		points := block.BlobPoints(b)
		s.blobs.Free(r.blobRef(), points)
		s.lost += uint64(points)
		s.blob.lost += uint64(points)
		s.forgetBlob(r)
	}
	return o, ok
}

// pointsInBlob is how many points the blob of r has, 0 if it has gone.
func (s *shard) pointsInBlob(r *series) int {
	if r.flags&flagBlob == 0 {
		return 0
	}
	b := s.blobs.Value(r.blobRef())
	if b == nil {
		return 0
	}
	return block.BlobPoints(b)
}

// blobSize is the bytes that the blob of r takes, 0 if it has none.
func (s *shard) blobSize(r *series) int64 {
	if r.flags&flagBlob == 0 {
		return 0
	}
	b := s.blobs.Value(r.blobRef())
	if b == nil {
		return 0
	}
	return int64(entryBytes(len(b)))
}

// pruneBlob forgets a blob that vanished.
func (s *shard) pruneBlob(r *series) {
	if r.flags&flagBlob != 0 && !s.blobs.Live(r.blobRef()) {
		s.forgetBlob(r)
	}
}

// forgetBlob leaves r without its blob, whose points are counted elsewhere.
func (s *shard) forgetBlob(r *series) {
	r.completeFrom = max(r.completeFrom, s.afterBlob(r))
	r.setBlob(0)
}

// afterBlob is the time from which on nothing is missing when the blob of r
// has gone: all that was in it was before all the rest.
func (s *shard) afterBlob(r *series) int64 {
	if dir := s.dirOf(r); len(dir) > 0 {
		return dir[0].start
	}
	return r.sealedEnd + 1
}

// freeBlob frees the blob of r, whose points the caller counts.
func (s *shard) freeBlob(r *series) {
	if r.flags&flagBlob != 0 {
		s.blobs.Free(r.blobRef(), s.pointsInBlob(r))
		r.setBlob(0)
	}
}
