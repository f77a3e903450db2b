package wire

// Tags of prometheus.WriteRequest and what it holds. A constant Last… is the
// highest field number of a message that this package knows.
const (
	TagV1Series   = 1<<3 | TypeBytes
	TagV1Metadata = 3<<3 | TypeBytes
	LastV1Request = 3

	TagV1SeriesLabel     = 1<<3 | TypeBytes
	TagV1SeriesSample    = 2<<3 | TypeBytes
	TagV1SeriesExemplar  = 3<<3 | TypeBytes
	TagV1SeriesHistogram = 4<<3 | TypeBytes
	LastV1Series         = 4

	TagLabelName  = 1<<3 | TypeBytes
	TagLabelValue = 2<<3 | TypeBytes
	LastLabel     = 2

	TagSampleValue = 1<<3 | TypeFixed64
	TagSampleTime  = 2<<3 | TypeVarint
	TagSampleStart = 3<<3 | TypeVarint // of protocol 2.0 only
	LastV1Sample   = 2
	LastV2Sample   = 3
)

// Tags of io.prometheus.write.v2.Request and what it holds. Its Sample is that
// of 1.0, with a start time.
const (
	TagV2Symbol   = 4<<3 | TypeBytes
	TagV2Series   = 5<<3 | TypeBytes
	LastV2Request = 5

	TagV2SeriesRef       = 1<<3 | TypeVarint // one reference
	TagV2SeriesRefs      = 1<<3 | TypeBytes  // packed references
	TagV2SeriesSample    = 2<<3 | TypeBytes
	TagV2SeriesHistogram = 3<<3 | TypeBytes
	TagV2SeriesExemplar  = 4<<3 | TypeBytes
	TagV2SeriesMetadata  = 5<<3 | TypeBytes
	LastV2Series         = 5

	TagV2MetadataType = 1<<3 | TypeVarint
	TagV2MetadataHelp = 3<<3 | TypeVarint
	TagV2MetadataUnit = 4<<3 | TypeVarint
	LastV2Metadata    = 4
)

// TagHistogramStart is the one field of a Histogram that protocol 1.0 does not have.
const TagHistogramStart = 17<<3 | TypeVarint
