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

// blobOfLocked is the blob of r, valid until the next call on the shard's
// tables; ok is false if it has none, or had one that is gone.
func (s *shard) blobOfLocked(r *series) (o block.Blob, ok bool) {
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
		s.forgetBlobLocked(r)
	}
	return o, ok
}

// pointsInBlobLocked is how many points the blob of r has, 0 if it has gone.
func (s *shard) pointsInBlobLocked(r *series) int {
	if r.flags&flagBlob == 0 {
		return 0
	}
	b := s.blobs.Value(r.blobRef())
	if b == nil {
		return 0
	}
	return block.BlobPoints(b)
}

// blobSizeLocked is the bytes that the blob of r takes, 0 if it has none.
func (s *shard) blobSizeLocked(r *series) int64 {
	if r.flags&flagBlob == 0 {
		return 0
	}
	b := s.blobs.Value(r.blobRef())
	if b == nil {
		return 0
	}
	return int64(entryBytes(len(b)))
}

// pruneBlobLocked forgets a blob that vanished.
func (s *shard) pruneBlobLocked(r *series) {
	if r.flags&flagBlob != 0 && !s.blobs.Live(r.blobRef()) {
		s.forgetBlobLocked(r)
	}
}

// forgetBlobLocked leaves r without its blob, whose points are counted elsewhere.
func (s *shard) forgetBlobLocked(r *series) {
	r.completeFrom = max(r.completeFrom, s.afterBlobLocked(r))
	r.setBlob(0)
}

// afterBlobLocked is the time from which on nothing is missing when the blob of r
// has gone: all that was in it was before all the rest.
func (s *shard) afterBlobLocked(r *series) int64 {
	if dir := s.dirOfLocked(r); len(dir) > 0 {
		return dir[0].start
	}
	return r.sealedEnd + 1
}

// freeBlobLocked frees the blob of r, whose points the caller counts.
func (s *shard) freeBlobLocked(r *series) {
	if r.flags&flagBlob != 0 {
		s.blobs.Free(r.blobRef(), s.pointsInBlobLocked(r))
		r.setBlob(0)
	}
}
